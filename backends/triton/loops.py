"""The loops over key tiles, as Triton text.

In: the slots of a kernel's ranges, and what else it does. Out: the lines of the loop
over PARTIAL tiles and of the one over FULL tiles. Not its job: which tiles (`ranges`),
scores and weights (`weigh`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from patternc.backends.triton.features import reads_of
from patternc.backends.triton.ranges import (
    MASK_NAMES,
    Slots,
    has_lists,
    is_listed,
    place,
    printer_of,
    shared_rule,
    shared_step,
)
from patternc.backends.triton.tables import load_lines
from patternc.backends.triton.template import fill
from patternc.backends.triton.weigh import (
    Weigher,
    attend_lines,
    scale_lines,
    score_lines,
    scores_read_keys,
)
from patternc.ir.nodes import BoolExpr
from patternc.ir.text import print_expr
from patternc.plan.kernel import TileKind

_INFINITE = 'float("-inf")'

_KEYS = "k = k0 + tl.arange(0, BLOCK_K)[None, :]"

Lines = Callable[[TileKind], list[str]]


@dataclass(frozen=True, slots=True)
class Body:
    """What is done with a tile: a template's name, the tile's loads, and what follows
    the logits before (`scale`) and after (`use`) scores and masks; in reverse also what
    is loaded for its `rows`. `is_shared`: the program may have but a share of the steps.
    """

    template: str
    load: list[str]
    scale: list[str]
    use: Lines
    rows: list[str] | None = None
    is_shared: bool = False


def forward_body(weigher: Weigher) -> Body:
    """The softmax so far, and one more key tile."""
    keys = "gather_keys" if weigher.ordered else "keys"
    return Body(
        "loop",
        fill(keys).splitlines(),
        scale_lines(weigher),
        lambda kind: attend_lines(weigher, kind),
        is_shared=True,
    )


def loop_lines(slots: Slots, weigher: Weigher, body: Body) -> list[str]:
    """The loops over the tiles of the program's own tile, PARTIAL ones first."""
    lines: list[str] = []
    for kind, columns in (
        (TileKind.PARTIAL, slots.partial),
        (TileKind.FULL, slots.full),
    ):
        if columns:
            has_keys = weigher.ordered or slots.reverse
            early = not has_keys and scores_read_keys(weigher)
            scores = [_KEYS] if early else []
            scores += score_lines(weigher, slots.indent + 4)
            holes = {
                "tile": tile_lines(slots, kind),
                "load": body.load,
                "scale": body.scale,
                "score": scores,
                "mask": _mask_lines(slots, kind, weigher, early or has_keys),
                "use": body.use(kind),
            }
            if body.rows is not None:
                holes["rows"] = body.rows
            head = "for t in tl.range(FIRST, LAST):"
            loop = fill(body.template, holes).replace(
                head, _loop_head(slots, kind, body), 1
            )
            lines += [f"# {kind.name} tiles", *loop.rstrip("\n").split("\n")]
    return lines


def _loop_head(slots: Slots, kind: TileKind, body: Body) -> str:
    """Steps count through a list from its start, else each kind's from 0."""
    if body.is_shared:
        return f"for t in tl.range(first_{kind.value}, last_{kind.value}):"
    if kind is TileKind.FULL and has_lists(slots.kernel):
        return "for t in tl.range(n_partial, n_partial + n_full):"
    return f"for t in tl.range(0, n_{kind.value}):"


def tile_lines(slots: Slots, kind: TileKind) -> list[str]:
    """The lines that turn a step `t` into its tile, `kt` or in reverse `qt`."""
    covers = slots.kernel.covers
    own = slots.tile
    listed = [f"{own} = tl.load(list_tiles + first_listed + t)"]
    if all(is_listed(cover) for cover in covers):
        return listed
    columns = slots.partial if kind is TileKind.PARTIAL else slots.full
    names = [f"{kind.value}_{at}" for at in range(len(columns))]
    # In a kernel with lists the steps of FULL tiles go on from the PARTIAL ones.
    goes_on = kind is TileKind.FULL and has_lists(slots.kernel)
    lines = ["step = t - n_partial"] if goes_on else []
    step_name = "step" if goes_on else "t"
    for at in reversed(range(len(names))):
        step = shared_step(columns[at])
        since = f"({step_name} - {names[at - 1]}_end)" if at else step_name
        if step is None:
            since = f"{since} * {names[at]}_step"
        elif step != 1:
            since = f"{since} * {step}"
        else:
            since = since.strip("()")
        tile = f"{names[at]}_lo + {since}"
        if at < len(names) - 1:
            tile = f"tl.where({step_name} < {names[at]}_end, {tile}, {own})"
        lines.append(f"{own} = {tile}")
    if has_lists(slots.kernel):
        lines += [
            "listed_at = list_tiles + first_listed + t",
            "listed_tile = tl.load(listed_at, mask=is_listed, other=0)",
            f"{own} = tl.where(is_listed, listed_tile, {own})",
        ]
    return lines


def _mask_lines(
    slots: Slots, kind: TileKind, weigher: Weigher, has_keys: bool
) -> list[str]:
    """The lines that hide invisible pairs in PARTIAL tiles and keys beyond `n_k`."""
    if slots.reverse:  # a key beyond `n_k` has a gradient that is not stored
        return [] if kind is TileKind.FULL else _hiding_lines(slots, weigher)
    keys = [] if has_keys else [_KEYS]
    inside = f"s = tl.where(k < n_k, s, {_INFINITE})"
    if kind is TileKind.FULL:
        body = ["    " + line for line in [*keys, inside]]
        return ["if k0 + BLOCK_K > n_k:", *body]
    return [*keys, inside, *_hiding_lines(slots, weigher)]


def _hiding_lines(slots: Slots, weigher: Weigher) -> list[str]:
    """The lines that hide the pairs of a PARTIAL tile that its mask hides."""
    lines: list[str] = []
    same = all(
        part is None or part.residual == slots.rules[0]
        for column in slots.partial
        for part in column
        if slots.rules
    )
    if not same:
        lines += rule_lines(slots)
    for at, rule in enumerate(slots.rules):
        body = [f"# {line}" for line in places(slots, rule)]
        body.append(f"# tests {print_expr(rule)}")
        body += test_lines(slots, rule, weigher, slots.indent + (4 if same else 8))
        if not same:
            body = [f"if rule == {at}:", *("    " + line for line in body)]
        lines += body
    return lines


def test_lines(
    slots: Slots, rule: BoolExpr, weigher: Weigher, indent: int
) -> list[str]:
    """The lines that hide the pairs for which a mask is false."""
    loaded = weigher.loaded.copy()
    printer = printer_of(slots.kernel, MASK_NAMES)
    lines = load_lines(reads_of(rule), printer, loaded, indent)
    printer = replace(printer, reads=loaded.ints)
    lines += printer.assign("keep", rule, indent)
    return [*lines, f"s = tl.where(keep, s, {_INFINITE})"]


def rule_lines(slots: Slots) -> list[str]:
    """The lines that find the rule of a step, -1 for none."""
    values = []
    for at, column in enumerate(slots.partial):
        shared = shared_rule(slots, column)
        values.append(f"partial_{at}_rule" if shared is None else str(shared))
    lines, before = [], "-1"
    for at in reversed(range(len(values))):
        is_same = at + 1 < len(values) and values[at] == values[at + 1]
        if not (is_same and not values[at].startswith("partial")):
            lines.append(
                f"rule = tl.where(t < partial_{at}_end, {values[at]}, {before})"
            )
        before = "rule"
    return lines


def places(slots: Slots, rule: BoolExpr) -> list[str]:
    """The places whose masks became this rule, each once."""
    found = [
        place(part.span)
        for column in slots.partial
        for part in column
        if part is not None and part.residual == rule
    ]
    return list(dict.fromkeys(found))

"""The loops over key tiles, as Triton text.

In: the slots of a kernel's ranges, and what else it does. Out: the lines of the loop
over PARTIAL tiles and of the one over FULL tiles. Not its job: which tiles (`ranges`),
scores and weights (`weigh`).
"""

from __future__ import annotations

from dataclasses import replace

from patternc.backends.triton.features import by_pair, reads_of
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

_AT_LOOP = 8  # the indent of what is in a loop
_AT_AGAIN = 16  # and in a loop of the template `again`
_KEYS = "k = k0 + tl.arange(0, BLOCK_K)[None, :]"


def loop_lines(slots: Slots, weigher: Weigher) -> list[str]:
    """The loops over the key tiles of the query tile, PARTIAL ones first."""
    return _loops(slots, weigher, _AT_LOOP, False)


def again_lines(slots: Slots, weigher: Weigher) -> list[str]:
    """The same loops for rows that hidden values spoiled."""
    if not slots.partial and not slots.full:
        return []
    loops = _loops(slots, weigher, _AT_AGAIN, True)
    return fill("again", {"loops": loops}).splitlines()


def _loops(slots: Slots, weigher: Weigher, indent: int, again: bool) -> list[str]:
    lines: list[str] = []
    for kind, columns in (
        (TileKind.PARTIAL, slots.partial),
        (TileKind.FULL, slots.full),
    ):
        if columns:
            keys = "gather_keys" if weigher.ordered else "keys"
            early = not weigher.ordered and scores_read_keys(weigher)
            scores = [_KEYS] if early else []
            scores += score_lines(weigher, indent)
            holes = {
                "key_tile": _key_tile_lines(slots, kind),
                "keys": fill(keys).splitlines(),
                "scale": scale_lines(weigher),
                "score": scores,
                "mask": _mask_lines(
                    slots, kind, weigher, early or weigher.ordered, indent
                ),
                "attend": attend_lines(weigher, again),
            }
            head = "for t in tl.range(FIRST, LAST):"
            loop = fill("loop", holes).replace(head, _loop_head(slots, kind, again), 1)
            lines += [f"# {kind.name} tiles", *loop.rstrip("\n").split("\n")]
    return lines


def _loop_head(slots: Slots, kind: TileKind, again: bool) -> str:
    """Steps count through a list from its start, else each kind's from 0."""
    # What hardly ever runs need not load ahead.
    stages = ", num_stages=1" if again else ""
    if kind is TileKind.FULL and has_lists(slots.kernel):
        return f"for t in tl.range(n_partial, n_partial + n_full{stages}):"
    return f"for t in tl.range(0, n_{kind.value}{stages}):"


def _key_tile_lines(slots: Slots, kind: TileKind) -> list[str]:
    """The lines that turn a step `t` into its key tile `kt`."""
    covers = slots.kernel.covers
    listed = ["kt = tl.load(list_tiles + first_listed + t)"]
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
            tile = f"tl.where({step_name} < {names[at]}_end, {tile}, kt)"
        lines.append(f"kt = {tile}")
    if has_lists(slots.kernel):
        lines += [
            "listed_at = list_tiles + first_listed + t",
            "listed_tile = tl.load(listed_at, mask=is_listed, other=0)",
            "kt = tl.where(is_listed, listed_tile, kt)",
        ]
    return lines


def _mask_lines(
    slots: Slots, kind: TileKind, weigher: Weigher, has_keys: bool, indent: int
) -> list[str]:
    """The lines that hide invisible pairs in PARTIAL tiles and keys beyond `n_k`."""
    keys = [] if has_keys else [_KEYS]
    inside = f"s = tl.where(k < n_k, s, {_INFINITE})"
    if kind is TileKind.FULL:
        body = ["    " + line for line in [*keys, inside]]
        return ["if k0 + BLOCK_K > n_k:", *body]
    lines = [*keys, inside]
    same = all(
        part is None or part.residual == slots.rules[0]
        for column in slots.partial
        for part in column
        if slots.rules
    )
    if not same:
        lines += _rule_lines(slots)
    for at, rule in enumerate(slots.rules):
        body = [f"# {line}" for line in _places(slots, rule)]
        body.append(f"# tests {print_expr(rule)}")
        body += _test_lines(slots, rule, weigher, indent + (0 if same else 4))
        if not same:
            body = [f"if rule == {at}:", *("    " + line for line in body)]
        lines += body
    return lines


def _test_lines(
    slots: Slots, rule: BoolExpr, weigher: Weigher, indent: int
) -> list[str]:
    """The lines that hide the pairs for which a mask is false."""
    loaded = weigher.loaded.copy()
    printer = printer_of(slots.kernel, MASK_NAMES)
    lines = load_lines(by_pair(reads_of(rule)), printer, loaded, indent)
    printer = replace(printer, reads=loaded.ints)
    lines += printer.assign("keep", rule, indent)
    return [*lines, f"s = tl.where(keep, s, {_INFINITE})"]


def _rule_lines(slots: Slots) -> list[str]:
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


def _places(slots: Slots, rule: BoolExpr) -> list[str]:
    """The places whose masks became this rule, each once."""
    found = [
        place(part.span)
        for column in slots.partial
        for part in column
        if part is not None and part.residual == rule
    ]
    return list(dict.fromkeys(found))

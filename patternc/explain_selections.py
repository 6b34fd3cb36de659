"""What a program selects, and what that costs before anything runs.

In: the trace of one compilation. Out: its selections as they could be written, what
choosing costs at some lengths, and where it will not pay. Not its job: the costs
themselves (`plan.cheaper`), the rest of an explanation (`patternc.explain`).
"""

from __future__ import annotations

from dataclasses import dataclass

from patternc.driver import Trace
from patternc.ir.map_text import print_selection
from patternc.ir.selected import dense_alternative, placed_params
from patternc.ir.selection import Selection, Sharing
from patternc.ir.text import print_expr
from patternc.plan.cheaper import MOST_LENGTH, costs, crossover
from patternc.plan.measured import CHOOSING

PRICED = (4096, 16384, 65536, 131072, 524288)
"""The lengths at which the cost of choosing is estimated."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One selection: as it could be written, and for whom it chooses."""

    name: str
    written: str
    scope: str


@dataclass(frozen=True, slots=True)
class Price:
    """What choosing costs at one length, as shares of a dense mask's pairs, and more.

    `scattered` is the share of tiles if chosen keys lie apart, beside that of a dense
    mask; `choice` says which way a call takes.
    """

    n: int
    estimate: float
    chosen: float
    density: float
    scattered: float
    dense_density: float
    choice: str


def chosen_of(selection: Selection) -> Chosen:
    """A selection in words."""
    keys = [print_expr(selection.keys[place]) for place in selection.per]
    whom = {Sharing.ALONE: "each head", Sharing.GROUP: "the heads of each kv head"}
    scope = whom.get(selection.shared, "all heads together")
    if keys:
        scope += " and each " + ", ".join(keys)
    return Chosen(selection.table, print_selection(selection), scope)


def prices_of(trace: Trace) -> tuple[Price, ...]:
    """What choosing costs at some lengths, where the program says enough."""
    attention = trace.kernel.attention
    params = _known_params(trace)
    if params is None:
        return ()
    found = []
    layout = attention.layout
    for n in PRICED if layout is None else (layout.size,):
        price = costs(attention, n, n, 0, params)
        dense = price.is_dense_cheaper and dense_alternative(attention) is not None
        whole = max(price.dense, 1.0)
        found.append(
            Price(
                n,
                price.estimate / whole,
                price.chosen / whole,
                price.density,
                price.scattered,
                price.dense_density,
                "dense" if dense else "choose",
            )
        )
    return tuple(found)


def _known_params(trace: Trace) -> tuple[tuple[str, int], ...] | None:
    """Run-time parameters of a program that selects; None if one has no value."""
    attention = trace.kernel.attention
    placed = placed_params(attention)
    own = [param for param in attention.params if param.name not in placed]
    params = tuple((p.name, p.default) for p in own if p.default is not None)
    return params if attention.selections and len(params) == len(own) else None


def crossover_of(trace: Trace) -> str:
    """From which length on choosing pays, and how that is known; "" if it is not."""
    attention, params = trace.kernel.attention, _known_params(trace)
    if params is None or attention.layout is not None:
        return ""
    known = f"by times of {CHOOSING[0].device}, not of this call's data"
    found = crossover(attention, params)
    if found is None:
        return f"choosing pays at no length up to N = {MOST_LENGTH}, {known}"
    who = (
        "calls choose" if dense_alternative(attention) is not None else "choosing pays"
    )
    return f"{who} from about N = {found} on, {known}"


def advice_of(trace: Trace, prices: tuple[Price, ...]) -> tuple[str, ...]:
    """Where choosing will not pay."""
    allowed = dense_alternative(trace.kernel.attention) is not None
    found = []
    lost = [one.n for one in prices if one.estimate + one.chosen >= 1.0]
    if lost and not allowed:
        found.append(
            f"at N = {max(lost)} and below this costs more than a dense mask; write"
            " `mask ... else dense when cheaper`"
        )
    apart = [one for one in prices if one.scattered > max(2 * one.density, 0.1)]
    if apart:
        one, times = apart[-1], CHOOSING[0]
        tiles = times.tile_ps / times.dense_ps
        dearer = [
            price.n
            for price in apart
            if price.estimate + tiles * price.scattered / price.dense_density >= 1.0
        ]
        more = f"; up to N = {max(dearer)} dense would be faster" if dearer else ""
        found.append(
            f"at N = {one.n} keys that lie apart reach {one.scattered:.2f} of the 64 x 64"
            f" tiles, though {one.density:.3f} of the pairs are visible: single keys and"
            f" diagonals pay if they lie in clusters{more}"
        )
    return tuple(found)


def selection_lines(
    selections: tuple[Chosen, ...],
    prices: tuple[Price, ...],
    crossing: str,
    advice: tuple[str, ...],
) -> list[str]:
    """All of it to read; nothing for a program that selects nothing."""
    if not selections:
        return []
    lines = ["", "# selections, chosen by a plan before the attention"]
    for one in selections:
        lines += [f"  {one.name} = {one.written}", f"    for {one.scope}"]
    if prices:
        lines.append(
            "  estimated for N queries and keys; costs as shares of a dense mask"
        )
        lines.append(
            f"{'N':>8}  {'estimate':>9}  {'attend':>9}  {'density':>9}  {'if apart':>9}"
        )
    for price in prices:
        lines.append(
            f"{price.n:>8}  {price.estimate:>9.4f}  {price.chosen:>9.4f}"
            f"  {price.density:>9.4f}  {price.scattered:>9.4f}  {price.choice}"
        )
    lines += [f"  {crossing}"] if crossing else []
    return [*lines, *(f"  warning: {text}" for text in advice)]

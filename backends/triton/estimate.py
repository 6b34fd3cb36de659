"""The text of the kernels that estimate and select.

In: the maps of a program's selections that fused kernels serve, as conditions on pairs.
Out: kernels for each map, and the functions on the host that start them. Not its job:
recognising such maps (`planner`), attention itself (`kernels`).

Nothing of n_q x n_k is ever stored: the rows of a probe are summed by column, by
diagonal or by block while their scores are made, each number by one program and in a
fixed order. Selection is a search, digit by digit, for the value at which a number of
groups, or a mass, is reached.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from patternc.analysis.interval import Box
from patternc.backends.triton.expr import Printer
from patternc.backends.triton.template import fill
from patternc.ir.nodes import Axis, BoolExpr

_NAMES = {Axis.QUERY: "q", Axis.KEY: "k", Axis.HEAD: "h", Axis.LENGTH: "length"}

SUMS = {"columns": "probe_columns", "diagonals": "probe_diagonals", "blocks": "probe_blocks"}
"""What a probe is summed by, and the template of its kernel."""


@dataclass(frozen=True, slots=True)
class ProbeText:
    """A map of scores: the pairs that it has, and what it is summed by.

    `condition` is over `q`, `k`, `h`, `N` and the run-time parameters `params`, in the
    order of the arguments.
    """

    condition: BoolExpr
    params: tuple[str, ...]
    sums: frozenset[str]


def probe_texts(at: int, probe: ProbeText, printer: Printer) -> list[str]:
    """The kernels of map number `at`, and the table of them that `Probe` takes."""
    holes: dict[str, Sequence[str]] = {
        "params": [f"p_{name}: tl.int32," for name in probe.params],
        "param_names": [f'"p_{name}",' for name in probe.params],
        "arguments": [f"p_{name}," for name in probe.params],
        "mask": printer.assign("seen", probe.condition, 4),
    }
    names = [name for name in SUMS if name in probe.sums]
    texts = [_filled("probe", holes, {"params", "arguments", "param_names", "mask"})]
    texts += [_filled(SUMS[name], holes, {"params", "arguments", "param_names"}) for name in names]
    table = [f"MAP_{at} = {{", '    "row_sums": row_sums_of_map,']
    table += [f'    "{name}": {name}_of_map,' for name in names]
    texts.append("\n".join([*table, "}", ""]))
    ends = (("_of_map", f"_of_map_{at}"), ("_in_map", f"_in_map_{at}"))
    for old, new in ends:
        texts = [text.replace(old, new) for text in texts]
    return texts


def _filled(
    name: str, holes: dict[str, Sequence[str]], used: Collection[str]
) -> str:
    return fill(name, {hole: lines for hole, lines in holes.items() if hole in used})


def printer_of(box: Box) -> Printer:
    """What prints the condition of a probe."""
    return Printer(_NAMES, box)


def host_texts() -> list[str]:
    """Tiles, pooling and selection: what every module that selects has once."""
    return [fill("probe_tiles"), fill("probe_calls"), fill("choose")]

"""The text of the kernels that estimate and select.

In: the maps of a program's selections that fused kernels serve, as conditions on pairs.
Out: kernels for each map, and the functions on the host that start them. Not its job:
recognising such maps (`fused`), calling them (`planner`), attention itself (`kernels`).

Nothing of n_q x n_k is ever stored: the rows of a probe are summed by column, by
diagonal or by block while their scores are made, each number by one program and in a
fixed order. Selection is a search, bit by bit or digit by digit, for the value at which a
number of groups, or a mass, is reached.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from patternc.analysis.interval import Box
from patternc.backends.triton.expr import Printer
from patternc.backends.triton.fused import Fused, Probe, SummedBy
from patternc.backends.triton.template import fill
from patternc.ir.nodes import Axis

_NAMES = {Axis.QUERY: "q", Axis.KEY: "k", Axis.HEAD: "h", Axis.LENGTH: "length"}

_KERNELS = {
    SummedBy.COLUMN: "columns",
    SummedBy.DIAGONAL: "diagonals",
    SummedBy.BACK_DIAGONAL: "diagonals",
    SummedBy.ANTIDIAGONAL: "diagonals",
    SummedBy.BLOCK: "parts",
}


def probe_texts(
    at: int, probe: Probe, sums: Collection[SummedBy], printer: Printer
) -> list[str]:
    """The kernels of map number `at`, and the table of them that `Probe` takes."""
    holes: dict[str, Sequence[str]] = {
        "params": [f"p_{name}: tl.int32," for name in probe.params],
        "param_names": [f'"p_{name}",' for name in probe.params],
        "arguments": [f"p_{name}," for name in probe.params],
        "mask": printer.assign("seen", probe.condition, 4),
    }
    used = {_KERNELS[by] for by in sums}
    if probe.is_softmax and used & {"columns", "diagonals"}:
        used.add("row_sums")
    names = [
        name for name in ("row_sums", "columns", "diagonals", "parts") if name in used
    ]
    texts = [_filled("probe", holes, {"params", "mask"})]
    texts += [
        _filled(f"probe_{name}", holes, {"params", "arguments", "param_names"})
        for name in names
    ]
    table = [f"MAP_{at} = {{"]
    table += [f'    "{name}": {name}_of_map,' for name in names]
    texts.append("\n".join([*table, "}", ""]))
    ends = (("_of_map", f"_of_map_{at}"), ("_in_map", f"_in_map_{at}"))
    for old, new in ends:
        texts = [text.replace(old, new) for text in texts]
    return texts


def _filled(name: str, holes: dict[str, Sequence[str]], used: Collection[str]) -> str:
    return fill(name, {hole: lines for hole, lines in holes.items() if hole in used})


def printer_of(box: Box) -> Printer:
    """What prints the condition of a probe."""
    return Printer(_NAMES, box)


def host_texts() -> list[str]:
    """Tiles, pooling and selection: what every module that selects has once."""
    names = ("probe_tiles", "probe_calls", "choose", "choose_segments", "choose_calls")
    return [fill(name) for name in names]


def plan_texts(fused: Fused, box: Box) -> list[str]:
    """All that a module with selections has for them."""
    printer = printer_of(box)
    kernels = [
        text
        for at, probe in enumerate(fused.probes)
        for text in probe_texts(at, probe, fused.sums_of(at), printer)
    ]
    names = [f"MAP_{at}" for at in range(len(fused.probes))]
    maps = f"MAPS = [{', '.join(names)}]  # the kernels of each estimate\n"
    return [*host_texts(), *kernels, maps]

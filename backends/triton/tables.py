"""Elements of inputs in Triton text.

In: reads. Out: the arguments of the kernel that carry the inputs, and lines that load
elements into variables. Not its job: what is computed from them (`expr`, `floats`),
building tile lists (`profiles`).

Every load is masked: outside of its input a read gives 0 and touches no memory.
Addresses have 64 bits. A batch axis of 1 has stride 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from patternc.backends.triton.expr import COLUMNS, Printer
from patternc.backends.triton.features import AnyRead
from patternc.ir.nodes import AxisKind, Const, Expr, FloatRead, Input


@dataclass(frozen=True, slots=True)
class Loaded:
    """Variables that hold elements, as printers want them."""

    ints: dict[Expr, str] = field(default_factory=dict)
    floats: dict[FloatRead, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Loaded:
        """For a block of text: what is loaded in it is unknown outside."""
        return Loaded(dict(self.ints), dict(self.floats), self.counts)

    def name_of(self, read: AnyRead) -> str | None:
        """The variable of a read, or None."""
        return (
            self.floats.get(read)
            if isinstance(read, FloatRead)
            else self.ints.get(read)
        )


def pointers(tables: Sequence[Input]) -> list[str]:
    """The names of the pointer arguments.

    A name of the user's always ends a name of ours, so that no two can be equal.
    """
    return [f"t_{item.name}" for item in tables]


def numbers(tables: Sequence[Input]) -> list[tuple[str, str]]:
    """The other arguments and their types: the batch's stride, sizes and strides."""
    found = []
    for item in tables:
        found.append((f"tb_{item.name}", "tl.int64"))
        for at in range(axis_count(item)):
            found.append((f"n{at}_{item.name}", "tl.int32"))
            found.append((f"s{at}_{item.name}", "tl.int64"))
    return found


def axis_count(item: Input) -> int:
    """The axes of an input beside the batch's."""
    return sum(axis.kind is not AxisKind.BATCH for axis in item.axes)


def batch_lines(tables: Sequence[Input]) -> list[str]:
    """Lines that move every pointer to the batch element of the program."""
    return [f"t_{x.name} += b.to(tl.int64) * tb_{x.name}" for x in tables]


def load_lines(
    reads: Sequence[AnyRead], printer: Printer, loaded: Loaded, indent: int
) -> list[str]:
    """Lines that load each read that is not in a variable yet; `loaded` is extended."""
    lines: list[str] = []
    for read in reads:
        if loaded.name_of(read) is not None:
            continue
        count = loaded.counts.get(read.table, 0) + 1
        loaded.counts[read.table] = count
        name = f"r_{read.table}_{count}"
        arguments = [f"t_{read.table}"]
        for at, index in enumerate(read.indices):
            own = replace(printer, reads=loaded.ints)
            place = own.print(index)
            if not place.isidentifier() and not isinstance(index, Const):
                place = f"i_{read.table}_{count}x{at}"
                lines += own.assign(place, index, indent)
            arguments += [place, f"n{at}_{read.table}", f"s{at}_{read.table}"]
        lines += call_lines(name, f"read_{len(read.indices)}", arguments, indent)
        if isinstance(read, FloatRead):
            loaded.floats[read] = name
        else:
            loaded.ints[read] = name
    return lines


def call_lines(
    target: str, function: str, arguments: Sequence[str], indent: int
) -> list[str]:
    """`target = function(...)`, one argument a line if need be."""
    line = f"{target} = {function}({', '.join(arguments)})"
    if indent + len(line) <= COLUMNS:
        return [line]
    inner = [f"    {argument}," for argument in arguments]
    return [f"{target} = {function}(", *inner, ")"]


def read_functions(reads: Sequence[AnyRead]) -> str:
    """The functions that load, one for each number of axes."""
    counts = sorted({len(read.indices) for read in reads})
    return "\n\n".join(_read_function(count) for count in counts)


def _read_function(count: int) -> str:
    arguments = ["table"]
    body = [
        '"""The elements at the given places, 0 outside; integers of 32 bits or more."""'
    ]
    places, insides = [], []
    for at in range(count):
        arguments += [f"index_{at}", f"size_{at}", f"stride_{at}"]
        body.append(f"index_{at} = tl.cast(index_{at}, tl.int64)")
        places.append(f"index_{at} * stride_{at}")
        insides.append(f"(index_{at} >= 0) & (index_{at} < size_{at})")
    if count:
        body.append(f"at = {places[0]}")
        body += [f"at += {place}" for place in places[1:]]
        body.append(f"inside = {insides[0]}")
        body += [f"inside &= {inside}" for inside in insides[1:]]
        body.append("value = tl.load(table + at, mask=inside, other=0)")
    else:
        body.append("value = tl.load(table)")
    body += [
        "if value.dtype.is_int() and value.dtype.primitive_bitwidth < 32:",
        "    value = value.to(tl.int32)",
        "return value",
    ]
    head = f"def read_{count}({', '.join(arguments)}):"
    if len(head) > COLUMNS:
        inner = "".join(f"    {argument},\n" for argument in arguments)
        head = f"def read_{count}(\n{inner}):"
    text = "\n".join(f"    {line}" for line in body)
    return f"@triton.jit\n{head}\n{text}\n"

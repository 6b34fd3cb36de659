"""The inputs of a mask: `--input name=file.npy`.

In: the settings of the command line, an attention, the sizes of a call. Out: the
tables of one batch element that the attention's masks read. Needs no torch. Not its
job: calls with tensors (`backends.checks`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from patternc.cli.report import UsageError
from patternc.ir.nodes import Attention, AxisKind, Element, Input, InputAxis

Table = NDArray[Any]

_SUFFIX = ".npy"
_KINDS = {Element.INT: "iu", Element.BOOL: "b", Element.FLOAT: "f"}
"""NumPy's letters for the dtypes that each element may come as."""

_LEAST, _MOST = -(2**31), 2**31 - 1


@dataclass(frozen=True, slots=True)
class Call:
    """The sizes of a call, and the batch element that is looked at."""

    n_q: int
    n_k: int
    q_offset: int
    batch: int = 0


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """--input and --batch."""
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE.npy",
        help="the values of one of its inputs; may be repeated",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=0,
        metavar="B",
        help="the batch element of inputs that have several (default: 0)",
    )


def read_tables(settings: Iterable[str]) -> dict[str, Table]:
    """The arrays given as `name=file.npy`. Raises `UsageError` and `OSError`.

    Nothing in a file is executed: arrays of Python objects are refused.
    """
    tables: dict[str, Table] = {}
    for setting in settings:
        name, equals, path = setting.partition("=")
        if not equals or not name.isidentifier() or not path.endswith(_SUFFIX):
            raise UsageError(f"--input {setting}: expected NAME=FILE{_SUFFIX}")
        if name in tables:
            raise UsageError(f"--input {setting}: {name} was given before")
        with Path(path).open("rb") as stream:
            try:
                table = np.load(stream, allow_pickle=False)
            except (ValueError, EOFError) as error:
                raise UsageError(f"--input {setting}: {error}") from None
        if not isinstance(table, np.ndarray):
            raise UsageError(f"--input {setting}: not a single array")
        tables[name] = table
    return tables


def tables_of(
    attention: Attention, given: Mapping[str, Table], call: Call
) -> dict[str, Table]:
    """The tables of one batch element, without a batch axis.

    Floating inputs change no mask: they may be left out, and are left out of the
    result. Raises `UsageError` for an unknown or missing name, a wrong dtype or shape,
    integers beyond 32 bits, NaN, infinities and values that fall in a sorted input.
    """
    chosen = {selection.table for selection in attention.selections}
    own = [item for item in attention.inputs if item.name not in chosen]
    declared = {item.name: item for item in own}
    for name in given:
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise UsageError(f"{attention.name} has no input {name}; it has {known}")
    tables = {}
    for item in own:
        if item.name in given:
            table = _element_table(item, given[item.name], attention, call)
            if item.element is not Element.FLOAT:
                tables[item.name] = table
        elif item.element is not Element.FLOAT:
            raise UsageError(
                f"{attention.name} needs --input {item.name}=FILE{_SUFFIX}"
            )
    return tables


def _element_table(
    item: Input, table: Table, attention: Attention, call: Call
) -> Table:
    """The values of one batch element, checked."""
    where = f"--input {item.name}"
    if table.dtype.kind not in _KINDS[item.element]:
        came = f"got {table.dtype}"
        raise UsageError(f"{where}: expected values of {item.element.value}, {came}")
    own = _without_batch(item, table, attention, call)
    if item.element is Element.INT and own.size:
        least, most = int(own.min()), int(own.max())
        if least < _LEAST or most > _MOST:
            far = least if least < _LEAST else most
            raise UsageError(f"{where}: expected integers of 32 bits, got {far}")
    if item.element is Element.FLOAT and not np.isfinite(own).all():
        raise UsageError(f"{where}: expected finite numbers, got NaN or an infinity")
    if item.is_sorted and own.ndim and bool((own[..., 1:] < own[..., :-1]).any()):
        raise UsageError(f"{where}: it is declared sorted, and its values fall")
    return own


def _without_batch(
    item: Input, table: Table, attention: Attention, call: Call
) -> Table:
    """The batch element that is looked at. Raises `UsageError` for a wrong shape."""
    kinds = [axis.kind for axis in item.axes]
    sizes = [axis_size(axis, attention, call) for axis in item.axes]
    fits = [len(sizes) == table.ndim, table.shape[1:] == tuple(sizes)]
    if AxisKind.BATCH in kinds:
        place = kinds.index(AxisKind.BATCH)
        rest = sizes[:place] + sizes[place + 1 :]
        if fits[0] and list(np.delete(table.shape, place)) == rest:
            return _taken(item, table, place, call)
    elif list(table.shape) == sizes:
        return table
    elif fits[1] and table.ndim == len(sizes) + 1:
        return _taken(item, table, 0, call)
    shown = [
        "B" if kind is AxisKind.BATCH else str(size)
        for kind, size in zip(kinds, sizes, strict=True)
    ]
    expected = f"[{', '.join(shown)}]"
    raise UsageError(
        f"--input {item.name}: expected the shape {expected}, got {list(table.shape)}"
    )


def _taken(item: Input, table: Table, place: int, call: Call) -> Table:
    """One batch element; an axis of one element serves all."""
    count = table.shape[place]
    if count != 1 and not 0 <= call.batch < count:
        came = f"{count} batch elements"
        raise UsageError(f"--batch {call.batch}: --input {item.name} has {came}")
    chosen: Table = np.take(table, 0 if count == 1 else call.batch, axis=place)
    return chosen


def axis_size(axis: InputAxis, attention: Attention, call: Call) -> int:
    """How long an axis of an input is in a call; 1 for a batch axis."""
    match axis.kind:
        case AxisKind.BATCH:
            return 1
        case AxisKind.HEAD:
            return attention.heads
        case AxisKind.KV_HEAD:
            return attention.kv_heads
        case AxisKind.QUERY:
            return _positions(call.q_offset + call.n_q, axis)
        case AxisKind.KEY:
            return _positions(call.n_k, axis)
        case AxisKind.SIZE:
            return axis.size
        case AxisKind.GROUP:
            raise TypeError("a plan's table is no input of a caller")
        case _:
            assert_never(axis.kind)


def _positions(end: int, axis: InputAxis) -> int:
    """How many indices the positions below `end` have, from index 0 on."""
    return max(0, (end - 1 - axis.shift) // axis.divisor + 1)

"""Plans: what the selections of a program chose for one call, to keep and use again.

In: the tables of selections, and what they were made for. Out: `Plan`, which calls
take, which can be saved, loaded, counted and drawn. Not its job: choosing
(`backends.planner`).

A saved plan is one file: a line that says what it is, the length of a header, the
header in JSON, then the tables, eight truth values in a byte. Nothing in it is executed,
and its sizes are compared with the file's before anything is read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patternc.backends.key_ranges import CallSizes, places_of, selection_ranges
from patternc.backends.reference import mask_tensor
from patternc.ir.evaluate import Tables
from patternc.ir.nodes import Attention
from patternc.ir.selected import (
    chosen_params,
)
from patternc.ir.walk import tables_of
from patternc.picture import terminal_picture
from patternc.version import VERSION

_MAGIC = b"patternc plan 1\n"
_MOST_HEADER = 1 << 20
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
}


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The chosen keys of one call, for `attn(q, k, v, plan=plan)`.

    `tables` holds a bool tensor [B, H, ...] for each selection, with one axis for each
    of its keys, `places` the run-time parameters that say where these are. The rest says what it was made for: the program, the sizes and the
    dtype of the call, the run-time parameters that the selections read. A call that
    differs in any of it does not take the plan.
    """

    attention: Attention = field(repr=False)
    tables: Mapping[str, Tensor] = field(repr=False)
    places: Mapping[str, int] = field(repr=False)
    batch: int
    sizes: CallSizes
    dtype: torch.dtype
    params: Mapping[str, int]

    @property
    def device(self) -> torch.device:
        """Where the tables are."""
        return next(iter(self.tables.values())).device

    def to(self, device: torch.device | str) -> Plan:
        """The same plan on another device."""
        tables = {name: table.to(device) for name, table in self.tables.items()}
        return self._with(tables)

    def _with(self, tables: Mapping[str, Tensor]) -> Plan:
        own = (self.places, self.batch, self.sizes, self.dtype, self.params)
        return Plan(self.attention, tables, *own)

    def counts(self) -> dict[str, Tensor]:
        """How many keys each selection holds, int64 [B, H]."""
        return {
            name: table.flatten(2).sum(-1) if table.dim() > 2 else table.long()
            for name, table in self.tables.items()
        }

    def mask(self, head: int, batch: int = 0, **given: int) -> Tensor:
        """The visible pairs of a head of a batch element, bool [n_q, n_k], on the CPU.

        `given` are run-time parameters that the mask alone reads. Inputs that a caller
        gives are not kept in a plan: raises `ValueError` if the mask reads one.
        """
        read = {name for case in self.attention.cases for name in tables_of(case.mask)}
        if read - self.tables.keys():
            name = min(read - self.tables.keys())
            raise ValueError(
                f"{self.attention.name}: the mask reads the input `{name}`, which is not"
                " in a plan; use attn.mask(..., plan=plan)"
            )
        tables = self.element(batch)
        sizes = (self.sizes.n_q, self.sizes.n_k, self.sizes.q_offset)
        params = {**self._defaults(), **self.params, **given, **self.places}
        return mask_tensor(self.attention, *sizes, params, tables=tables)[head]

    def _defaults(self) -> dict[str, int]:
        return {
            item.name: item.default
            for item in self.attention.params
            if item.default is not None
        }

    def element(self, batch: int) -> Tables:
        """The tables of one batch element, for NumPy."""
        return {
            name: table[batch].cpu().numpy().astype(np.int64)
            for name, table in self.tables.items()
        }

    def density(self, batch: int = 0, **given: int) -> list[float]:
        """The share of visible pairs of each head. Makes dense masks: for looking at."""
        pairs = max(self.sizes.n_q * self.sizes.n_k, 1)
        return [
            int(self.mask(head, batch, **given).sum()) / pairs
            for head in range(self.attention.heads)
        ]

    def draw(self, head: int, batch: int = 0, columns: int = 64, **given: int) -> str:
        """A picture of a head's mask for the terminal. Makes a dense mask."""
        return terminal_picture(self.mask(head, batch, **given).numpy(), columns)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan to a file. Raises `OSError`."""
        header = {
            "version": VERSION,
            "program": selection_hash(self.attention),
            "name": self.attention.name,
            "batch": self.batch,
            "n_q": self.sizes.n_q,
            "n_k": self.sizes.n_k,
            "q_offset": self.sizes.q_offset,
            "dtype": str(self.dtype).removeprefix("torch."),
            "params": dict(self.params),
            "tables": [[name, list(x.shape)] for name, x in self.tables.items()],
        }
        text = json.dumps(header, sort_keys=True).encode()
        packed = [
            np.packbits(table.cpu().numpy()).tobytes() for table in self.tables.values()
        ]
        data = _MAGIC + len(text).to_bytes(8, "little") + text + b"".join(packed)
        Path(path).write_bytes(data)


def load_plan(
    attention: Attention, path: str | os.PathLike[str], device: torch.device | str
) -> Plan:
    """A plan from a file that `Plan.save` wrote, for the same program.

    Raises `ValueError` for a file that is no plan, a damaged one, or one of another
    program; `OSError` if it cannot be read.
    """
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{os.fspath(path)}: not a plan")
        length = int.from_bytes(file.read(8), "little")
        if length > min(_MOST_HEADER, size):
            raise ValueError(
                f"{os.fspath(path)}: a damaged plan: its header is too long"
            )
        try:
            header = json.loads(file.read(length))
            plan = _from_header(attention, header, device)
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{os.fspath(path)}: a damaged plan: {error}") from None
        wanted = {name: (prod(x) + 7) // 8 for name, x in plan[1].items()}
        if len(_MAGIC) + 8 + length + sum(wanted.values()) != size:
            raise ValueError(f"{os.fspath(path)}: a damaged plan: its length is wrong")
        tables = {}
        for name, shape in plan[1].items():
            bits = np.frombuffer(file.read(wanted[name]), dtype=np.uint8)
            values = np.unpackbits(bits, count=prod(shape)).astype(np.bool_)
            tables[name] = torch.from_numpy(values).view(shape).to(device)
    return plan[0]._with(tables)


def _from_header(
    attention: Attention, header: dict[str, Any], device: torch.device | str
) -> tuple[Plan, dict[str, tuple[int, ...]]]:
    """A plan without tables, and their shapes, which follow from the sizes."""
    if header["program"] != selection_hash(attention):
        came = f"got one of `{header['name']}` from patternc {header['version']}"
        raise ValueError(f"{attention.name}: expected a plan of this program, {came}")
    numbers = [header[name] for name in ("batch", "n_q", "n_k", "q_offset")]
    params = header["params"]
    for number in (*numbers, *params.values()):
        if type(number) is not int or abs(number) > 2**31:
            raise TypeError(f"{number!r} is no size")
    batch, n_q, n_k, q_offset = numbers
    if min(batch, n_q, n_k) < 0 or params.keys() != set(chosen_params(attention)):
        raise TypeError("its sizes or parameters are wrong")
    sizes = CallSizes(n_q, n_k, q_offset)
    shapes = table_shapes(attention, batch, sizes, params)
    if header["tables"] != [[name, list(shape)] for name, shape in shapes.items()]:
        raise TypeError("its tables have other shapes")
    places = places_of(attention.selections, sizes, params)
    plan = Plan(attention, {}, places, batch, sizes, _DTYPES[header["dtype"]], params)
    return plan, shapes


def table_shapes(
    attention: Attention, batch: int, sizes: CallSizes, params: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """The shape of each selection's table in a call."""
    return {
        selection.table: (
            batch,
            attention.heads,
            *(own.size for own in selection_ranges(selection, sizes, params)),
        )
        for selection in attention.selections
    }


def selection_hash(attention: Attention) -> str:
    """The same in every process for the same program, whatever its schedule is."""
    known = (
        VERSION,
        attention.name,
        attention.heads,
        attention.kv_heads,
        attention.params,
        attention.inputs,
        attention.layout,
        attention.selections,
        attention.scores,
    )
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def needed_plan(
    attention: Attention,
    plan: Plan | None,
    sizes: CallSizes,
    params: Mapping[str, int],
) -> Plan:
    """The plan that a mask needs, whatever its tensors were.

    Raises `TypeError` for none, and as `check_plan` does.
    """
    if plan is None:
        expected = "expected a plan, as this program selects keys from data"
        raise TypeError(f"{attention.name}: `plan`: {expected}")
    like = torch.empty(plan.batch, 0, dtype=plan.dtype, device=plan.device)
    return check_plan(attention.name, attention, plan, like, sizes, params)


def check_plan(
    name: str,
    attention: Attention,
    plan: object,
    q: Tensor,
    sizes: CallSizes,
    params: Mapping[str, int],
) -> Plan:
    """A plan that was made for such a call.

    Raises `TypeError` for what is no plan, `ValueError` that says what differs.
    """
    if not isinstance(plan, Plan):
        came = type(plan).__name__
        raise TypeError(f"{name}: `plan`: expected a plan, got {came}")
    if plan.attention is not attention and selection_hash(
        plan.attention
    ) != selection_hash(attention):
        came = f"got one of `{plan.attention.name}`, compiled from other text or values"
        raise ValueError(f"{name}: `plan`: expected a plan of this program, {came}")
    here = {param: params[param] for param in chosen_params(attention)}
    for what, made, wanted in (
        ("batch size", plan.batch, q.shape[0]),
        ("number of queries", plan.sizes.n_q, sizes.n_q),
        ("number of keys", plan.sizes.n_k, sizes.n_k),
        ("q_offset", plan.sizes.q_offset, sizes.q_offset),
        ("dtype", plan.dtype, q.dtype),
        ("device", plan.device, q.device),
        ("run-time parameters", dict(plan.params), here),
    ):
        if made != wanted:
            raise ValueError(
                f"{name}: `plan`: made for the {what} {made}, and this call has {wanted}"
            )
    return plan

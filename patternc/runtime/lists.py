"""Tile lists that a package stores.

In: a package. Out: the lists of a call on a device. Not its job: lists that follow data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .format import PackageError
from .package import Package
from .tiles import ELEMENTS, Array

_INTEGERS = {"i32": torch.int32, "i64": torch.int64}


def stored_lists(package: Package) -> Callable[..., tuple[Any, Any]]:
    """What gives the tile lists of a call on a device, sent there once."""
    facts = package.manifest.facts
    sent: dict[tuple[int, torch.device], tuple[Any, Any]] = {}

    def find(
        n_q: int, n_k: int, q_offset: int, device: torch.device
    ) -> tuple[Any, Any]:
        found = sent.get((n_k, device))
        if found is not None and n_q == n_k and q_offset == 0:
            return found
        for lists in facts.lists:
            if lists.length == n_k == n_q and q_offset == 0:
                both = (lists.forward, lists.turned)
                found = tuple(_tensors(package, x, device) for x in both)  # type: ignore[assignment]
                assert found is not None
                sent[n_k, device] = found
                return found
        lengths = ", ".join(str(lists.length) for lists in facts.lists)
        raise PackageError(
            f"{facts.name}: the package lists the tiles of {lengths} queries and as many"
            f" keys; got {n_q} from {q_offset} on, and {n_k}"
        )

    return find


def _tensors(
    package: Package, arrays: Sequence[Array], device: torch.device
) -> tuple[Tensor, ...]:
    found = []
    for array in arrays:
        dtype = _INTEGERS[array.element]
        flat = torch.zeros(array.size // ELEMENTS[array.element], dtype=dtype)
        if array.size:
            flat = torch.frombuffer(bytearray(package.blob(array.blob)), dtype=dtype)
        found.append(flat.view(array.shape).to(device))
    return tuple(found)

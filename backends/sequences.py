"""Sequences of different lengths in one call.

In: a loaded attention and tensors that are padded or packed. Out: what the attention
gives for each sequence on its own, put in its place. Not its job: checking the call
(`backends.checks`), doing this in one launch (`backends.triton`).

This is the definition: a sequence is an attention of its own, square, whose positions
and whose `N` begin anew. It waits for the device to know the lengths.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor], Tensor | tuple[Tensor, Tensor]]


class Form(Enum):
    """How sequences lie: one in each batch element, or all in one, end to end."""

    PADDED = "padded"
    PACKED = "packed"


@dataclass(frozen=True, slots=True)
class Sequences:
    """`numbers` are int32 on the device of `q`: the lengths [B] of padded sequences, or
    where packed ones start, and the end [count + 1]. `longest` bounds their lengths.
    """

    form: Form
    numbers: Tensor
    longest: int

    def places(self) -> list[tuple[int, int, int]]:
        """Batch element, first row and length of each."""
        numbers = [int(number) for number in self.numbers.tolist()]
        if self.form is Form.PADDED:
            return [(at, 0, length) for at, length in enumerate(numbers)]
        pairs = itertools.pairwise(numbers)
        return [(0, start, stop - start) for start, stop in pairs]


def named(sequences: Sequences | None) -> dict[str, Tensor | int]:
    """Sequences as the arguments of a call; none for a call without."""
    if sequences is None:
        return {}
    if sequences.form is Form.PADDED:
        return {"lengths": sequences.numbers}
    return {"cu_seqlens": sequences.numbers, "max_seqlen": sequences.longest}


def by_sequence(
    attend: Attend, sequences: Sequences, tensors: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Output [B, H, n, D_v] and LSE [B, H, n]; 0 and -inf beyond the sequences.

    `attend` gives both for tensors [1, heads, length, D]. Raises `ValueError` for a
    length that does not fit the tensors or is beyond the longest.
    """
    rows, lses = [], []
    at = 0
    n = tensors[0].shape[2]
    for element, start, length in sequences.places():
        if not (0 <= length <= sequences.longest and start + length <= n):
            expected = f"lengths from 0 to {sequences.longest} within {n} rows"
            raise ValueError(f"expected {expected}, got {length} from {start} on")
        part = (slice(element, element + 1), slice(None), slice(start, start + length))
        output, lse = attend(*(tensor[part] for tensor in tensors))
        pad = n - length if sequences.form is Form.PADDED else 0
        rows.append(torch.nn.functional.pad(output, (0, 0, 0, pad)))
        lses.append(torch.nn.functional.pad(lse, (0, pad), value=-torch.inf))
        at = start + length
    if sequences.form is Form.PADDED:
        return torch.cat(rows), torch.cat(lses)
    output, lse = torch.cat(rows, dim=2), torch.cat(lses, dim=2)
    output = torch.nn.functional.pad(output, (0, 0, 0, n - at))
    return output, torch.nn.functional.pad(lse, (0, n - at), value=-torch.inf)

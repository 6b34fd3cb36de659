"""What an attention holds every call to.

In: an attention, then the arguments of a call. Out: scale, offset, run-time parameters,
inputs and sequences, checked, or a `TypeError` or `ValueError` that names the argument. Not its
job: the checks themselves (`backends.checks`), running a call (`patternc.attention`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from patternc.backends.checks import (
    LIMIT,
    check_call,
    check_length,
    check_own_values,
    check_params,
    check_sequences,
)
from patternc.backends.declared import given_by_callers
from patternc.backends.input_checks import Declared, check_inputs
from patternc.backends.key_ranges import CallSizes
from patternc.backends.rows import reads_own_value, unnormalised_heads
from patternc.backends.sequences import Form, Sequences
from patternc.ir.nodes import STEPS, Attention
from patternc.ir.selected import (
    placed_params,
)

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""The dtypes that some backend computes; one may accept fewer."""


@dataclass(frozen=True, slots=True)
class Contract:
    """What every call is held to, in plain values that torch.compile can follow.

    `params` are the run-time parameters with their defaults; `size` is the layout's;
    `takes_sequences` says whether a call may have several in a batch element.
    """

    name: str
    heads: int
    kv_heads: int
    params: Mapping[str, int | None]
    inputs: Declared
    size: int | None
    reads_own_value: bool
    unnormalised: tuple[int, ...]
    takes_sequences: bool

    def resolve(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float | None, q_offset: int | None
    ) -> tuple[float, int]:
        """The scale and the query offset of a call on these tensors.

        Raises `TypeError` or `ValueError` for what no backend computes.
        """
        factor, offset = check_call(
            self.name,
            q,
            k,
            v,
            heads=self.heads,
            kv_heads=self.kv_heads,
            scale=scale,
            q_offset=q_offset,
            dtypes=DTYPES,
        )
        n_q, n_k = q.shape[2], k.shape[2]
        self.check_sizes(n_q, n_k, offset)
        if self.reads_own_value:
            check_own_values(self.name, n_q, n_k, offset)
        return factor, offset

    def check_sizes(self, n_q: int, n_k: int, q_offset: int) -> None:
        """A layout has one length. Raises `ValueError`."""
        if self.size is not None:
            check_length(self.name, self.size, n_q, n_k, q_offset)

    def sizes(self, n_q: int, n_k: int, q_offset: int | None) -> CallSizes:
        """Those of a call without tensors; the offset is n_k - n_q unless given.

        Raises `TypeError` or `ValueError`.
        """
        rows, keys = self._length("n_q", n_q), self._length("n_k", n_k)
        default = {"q_offset": keys - rows}
        chosen = {} if q_offset is None else {"q_offset": q_offset}
        offset = check_params(self.name, default, chosen)["q_offset"]
        self.check_sizes(rows, keys, offset)
        return CallSizes(rows, keys, offset)

    def _length(self, argument: str, value: int) -> int:
        """A number of rows or keys."""
        length = check_params(self.name, {argument: None}, {argument: value})[argument]
        if length < 0:
            expected = f"`{argument}`: expected a length from 0 to {LIMIT}"
            raise ValueError(f"{self.name}: {expected}, got {length}")
        return length

    def sequences(
        self,
        q: Tensor,
        n_k: int,
        q_offset: int,
        lengths: Tensor | None,
        cu_seqlens: Tensor | None,
        max_seqlen: int | None,
    ) -> Sequences | None:
        """The sequences of a call, if it has some; see `checks.check_sequences`.

        Raises `TypeError`, or `ValueError`, also for a program that takes only whole
        batch elements.
        """
        given = (lengths, cu_seqlens, max_seqlen)
        named = check_sequences(self.name, q, n_k, q_offset, *given)
        if named is None:
            return None
        if not self.takes_sequences:
            reason = "inputs and layouts have places in the whole sequence"
            raise ValueError(
                f"{self.name}: `lengths`, `cu_seqlens`: refused, as {reason}"
            )
        form, numbers, longest = named
        return Sequences(Form(form), numbers, longest)

    def values(self, given: Mapping[str, object]) -> dict[str, int]:
        """The run-time parameters among what a call gives, else their defaults.

        Raises `TypeError` or `ValueError` for those that are wrong or missing, and for
        what is no parameter, input, layer or step.
        """
        if not (given or self.params):
            return {}
        steps = {name: given[name] for name in STEPS if name in given}
        for step, value in check_params(self.name, dict.fromkeys(steps), steps).items():
            if value < 0:  # cases are proved disjoint and complete from 0 on
                came = f"expected an integer of at least 0, got {value}"
                raise ValueError(f"{self.name}: `{step}`: {came}")
        unread = steps.keys() - self.params.keys()
        read = {name: given[name] for name in given if name not in unread}
        return check_params(self.name, self.params, read, self.inputs)

    def tensors(
        self, given: Mapping[str, object], q: Tensor, n_k: int, q_offset: int
    ) -> dict[str, Tensor]:
        """The inputs among what a call gives; see `input_checks.check_inputs`."""
        if not self.inputs:
            return {}
        return check_inputs(
            self.name,
            self.inputs,
            given,
            batch=q.shape[0],
            heads=self.heads,
            kv_heads=self.kv_heads,
            n_q=q.shape[2],
            n_k=n_k,
            q_offset=q_offset,
            device=q.device,
            dtype=q.dtype,
        )


def contract_of(attention: Attention) -> Contract:
    """Look at an attention once. What a plan gives is no business of a caller."""
    placed = placed_params(attention)
    return Contract(
        attention.name,
        attention.heads,
        attention.kv_heads,
        {
            item.name: item.default
            for item in attention.params
            if item.name not in placed
        },
        given_by_callers(attention),
        None if attention.layout is None else attention.layout.size,
        any(reads_own_value(case.output) for case in attention.outputs),
        unnormalised_heads(attention),
        not attention.inputs and attention.layout is None,
    )

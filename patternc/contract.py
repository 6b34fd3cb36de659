"""What an attention holds every call to.

In: an attention, then the arguments of a call. Out: scale, offset, run-time parameters
and inputs, checked, or a `TypeError` or `ValueError` that names the argument. Not its
job: the checks themselves (`backends.checks`), running a call (`patternc.attention`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from patternc.backends.checks import (
    check_call,
    check_length,
    check_own_values,
    check_params,
)
from patternc.backends.declared import given_by_callers
from patternc.backends.input_checks import Declared, check_inputs
from patternc.backends.rows import reads_own_value, unnormalised_heads
from patternc.ir.nodes import STEPS, Attention
from patternc.ir.selected import (
    placed_params,
)

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""The dtypes that some backend computes; one may accept fewer."""


@dataclass(frozen=True, slots=True)
class Contract:
    """What every call is held to, in plain values that torch.compile can follow.

    `params` are the run-time parameters with their defaults; `size` is the layout's.
    """

    name: str
    heads: int
    kv_heads: int
    params: Mapping[str, int | None]
    inputs: Declared
    size: int | None
    reads_own_value: bool
    unnormalised: tuple[int, ...]

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
    )

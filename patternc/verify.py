"""Every backend against the reference, error beside budget.

In: a kernel, names of backends, a device. Out: one `Result` for each backend, dtype,
size and quantity. Not its job: gradients (`patternc.verify_gradients`), printing
(`patternc.cli`), drawing the tensors of a call (`patternc.samples`), and asking whether
the reference means what the text says (the tests of `ir.evaluate`).

Every budget comes from a run in float64 on the same inputs, the golden one:

- float32: the mean error may be 10 times that of the reference run in float32.
- float16, bfloat16: FlashAttention's rule. The greatest error may be twice that of
  attention computed in that dtype throughout, plus twice what adding and taking away
  0.3 in that dtype costs, so that the budget is not 0 where plain attention is exact.
- float64: the float32 rule, scaled by how much finer float64 is.
- LSE: the float32 rule for every 16-bit dtype too, since all compute it in float32.

Errors are judged head by head; the worst one is reported. NaN, and an LSE that is -inf
where the golden one is not, is an infinite error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypedDict, Unpack

import torch
from torch import Tensor

from patternc import backends
from patternc.backends.protocol import LoadedAttention
from patternc.backends.reference import ReferenceBackend, attend
from patternc.backends.rows import Invocation
from patternc.diagnostics import PatternError
from patternc.ir.selected import placed_params
from patternc.plan.kernel import Kernel
from patternc.samples import CallSize, Sample, sample, sizes_for

SIZES = ((1, 1), (64, 128), (113, 203), (203, 113), (200, 200), (256, 512))
"""Rows and keys: single, aligned, ragged, more rows than keys (so some are empty)."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SLACK = 10.0
"""How many times the reference's own error a float32 result may have."""


class Quantity(Enum):
    """What was compared."""

    OUTPUT = "output"
    LSE = "lse"
    GRADIENT = "gradient"


@dataclass(frozen=True, slots=True)
class Result:
    """One comparison; `head` is the one whose error is the worst for its budget.

    `of` says of which tensor a gradient is.
    """

    backend: str
    dtype: str
    n_q: int
    n_k: int
    q_offset: int
    quantity: Quantity
    head: int
    error: float
    budget: float
    of: str = ""

    @property
    def ok(self) -> bool:
        """Whether the error is within its budget; NaN is not."""
        return self.error <= self.budget


class Calls(TypedDict, total=False):
    """The calls to compare; what is left out is as in `USUAL_CALLS`.

    `sizes` are (n_q, n_k), each with `q_offset`, or n_k - n_q if that is None;
    `samples.sizes_for` says what a program makes of them. `params` must hold every
    run-time parameter without a default. D_v is `head_dim` if `value_dim` is None.
    """

    dtypes: Sequence[torch.dtype]
    sizes: Sequence[tuple[int, int]]
    params: Mapping[str, int]
    batch: int
    head_dim: int
    value_dim: int | None
    q_offset: int | None
    seed: int


USUAL_CALLS: Calls = {
    "dtypes": DTYPES,
    "sizes": SIZES,
    "params": {},
    "batch": 2,
    "head_dim": 64,
    "value_dim": None,
    "q_offset": None,
    "seed": 0,
}


def verify(
    kernel: Kernel, names: Sequence[str], device: str = "cpu", **calls: Unpack[Calls]
) -> list[Result]:
    """Run each backend on seeded normal inputs and compare; see `verify_each`."""
    return list(verify_each(kernel, names, device, **calls))


def verify_each(
    kernel: Kernel, names: Sequence[str], device: str = "cpu", **calls: Unpack[Calls]
) -> Iterator[Result]:
    """The results as they come: sizes, then dtypes, then backends, then quantities.

    Where some weights have no sum there is no LSE to compare. Raises `PatternError` if a
    backend refuses the kernel and `ValueError` for an unknown backend or a missing
    parameter, before anything is run.
    """
    loaded = {name: load(kernel, name) for name in names}
    golden_run = ReferenceBackend().load(kernel)
    for inputs, dtype in samples(kernel, device, calls):
        golden = inputs.run(golden_run, torch.float64)
        budgets = _budgets(kernel, inputs, golden, dtype)
        for name, attention in loaded.items():
            found = inputs.run(attention, dtype)
            for quantity, mine, true, (measure, budget) in zip(
                list(Quantity)[: len(found)], found, golden, budgets, strict=True
            ):
                error = error_of(mine, true, measure)
                yield result_of(name, inputs, dtype, quantity, error, budget)


def samples(
    kernel: Kernel, device: str, calls: Calls
) -> Iterator[tuple[Sample, torch.dtype]]:
    """The seeded tensors of each call, sizes first, then dtypes.

    Raises `ValueError` if a run-time parameter has no value.
    """
    chosen: Calls = {**USUAL_CALLS, **calls}
    values = _values_of(kernel, chosen["params"])
    given = chosen["q_offset"]
    for n_q, n_k in sizes_for(kernel.attention, chosen["sizes"], given):
        offset = n_k - n_q if given is None else given
        dims = chosen["head_dim"], chosen["value_dim"]
        size = CallSize(chosen["batch"], n_q, n_k, offset, *dims)
        for dtype in chosen["dtypes"]:
            seed = chosen["seed"]
            yield sample(kernel.attention, size, dtype, device, values, seed), dtype


def result_of(
    name: str,
    call: Sample,
    dtype: torch.dtype,
    quantity: Quantity,
    error: Tensor,
    budget: Tensor,
    of: str = "",
) -> Result:
    """The result of the worst head, by errors and budgets [H]."""
    head = worst_head(error, budget)
    return Result(
        name,
        str(dtype).removeprefix("torch."),
        call.q.shape[2],
        call.k.shape[2],
        call.q_offset,
        quantity,
        head,
        float(error[head]),
        float(budget[head]),
        of,
    )


class Measure(Enum):
    """How the errors of a head become one number."""

    MEAN = "mean"
    GREATEST = "greatest"


def load(kernel: Kernel, name: str) -> LoadedAttention:
    """A backend's attention. Raises `PatternError` if it refuses the kernel."""
    backend = backends.get(name)
    refusal = backend.refuse(kernel)
    if refusal is not None:
        raise PatternError([refusal])
    return backend.load(kernel)


def _values_of(kernel: Kernel, params: Mapping[str, int]) -> dict[str, int]:
    """A value for each run-time parameter. Raises `ValueError` if one has none."""
    values = {}
    placed = placed_params(kernel.attention)
    for declared in kernel.attention.params:
        if declared.name in placed:
            continue  # a plan's
        value = params.get(declared.name, declared.default)
        if value is None:
            raise ValueError(f"verify: no value for the parameter `{declared.name}`")
        values[declared.name] = value
    return values


def _budgets(
    kernel: Kernel,
    inputs: Sample,
    golden: Sequence[Tensor],
    dtype: torch.dtype,
) -> list[tuple[Measure, Tensor]]:
    """How to measure, and the budget [H], for the output and for the LSE, if any."""
    single = inputs.run(ReferenceBackend().load(kernel), torch.float32)
    sizes = [rounding(golden[0])]
    if inputs.has_lse:
        sizes.append(rounding(_logit_sizes(inputs)) + rounding(golden[1]))
    budgets = [
        SLACK * error_of(mine, true, Measure.MEAN) + size
        for mine, true, size in zip(single, golden, sizes, strict=True)
    ]
    if dtype in (torch.float64, torch.float32):
        return [(Measure.MEAN, budget * finer(dtype)) for budget in budgets]
    plain = error_of(_attend_in(kernel, inputs, dtype), golden[0], Measure.GREATEST)
    output = (Measure.GREATEST, 2 * plain + 2 * noise_of(golden[0], dtype))
    return [output, *((Measure.MEAN, budget) for budget in budgets[1:])]


def finer(dtype: torch.dtype) -> float:
    """How much finer than float32 a result is: float64 is held to its own rounding."""
    if dtype != torch.float64:
        return 1.0
    return torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps


def noise_of(golden: Tensor, dtype: torch.dtype) -> Tensor:
    """What adding and taking away 0.3 in `dtype` costs, at most, for each head."""
    narrow = golden.to(dtype)
    noise = ((narrow + 0.3 - 0.3).double() - narrow.double()).abs()
    return _by_head(noise, Measure.GREATEST)


def _logit_sizes(inputs: Sample) -> Tensor:
    """What the products of a row's largest logit add up to, signs aside [B, H, n_q].

    A logit near 0 is a sum of terms that are not: each is rounded by its own size, and
    the LSE inherits that. One row alone would else have a budget that is small by luck.
    """
    group = inputs.q.shape[1] // inputs.k.shape[1]
    keys = inputs.k.abs().repeat_interleave(group, dim=1)
    sizes = (inputs.q.abs() @ keys.transpose(-1, -2)) * abs(inputs.scale)
    return sizes.amax(dim=-1).cpu() if keys.shape[2] else sizes.sum(dim=-1).cpu()


def _attend_in(kernel: Kernel, inputs: Sample, dtype: torch.dtype) -> Tensor:
    """The output if every step is rounded to `dtype`: what the budget is a multiple of.

    The reference will not do: it computes 16-bit inputs in float32.
    """
    q, k, v = (item.to(dtype) for item in (inputs.q, inputs.k, inputs.v))
    call = Invocation(
        kernel.attention, inputs.scale, inputs.q_offset, k.shape[2], inputs.params
    )
    output, _ = attend(call, q, k, v, inputs.inputs)
    return output.double().cpu()


def error_of(mine: Tensor, golden: Tensor, measure: Measure) -> Tensor:
    """The error of each head [H]; infinite where one side is not finite alone."""
    same = mine == golden  # -inf - -inf would be NaN
    error = torch.where(same, 0.0, (mine - golden).abs())
    return _by_head(error.nan_to_num(nan=math.inf), measure)


def _by_head(error: Tensor, measure: Measure) -> Tensor:
    """[B, H, n_q, ...] -> [H]; 0 if there is nothing to measure."""
    flat = error.transpose(0, 1).flatten(1)
    if flat.shape[1] == 0:
        return flat.sum(1)
    return flat.mean(1) if measure is Measure.MEAN else flat.amax(1)


def rounding(sizes: Tensor) -> Tensor:
    """One float32 rounding of numbers of these sizes [H], for exact results."""
    size = torch.where(sizes.isfinite(), sizes.abs(), 0.0)
    return torch.finfo(torch.float32).eps * _by_head(size, Measure.MEAN)


def worst_head(error: Tensor, budget: Tensor) -> int:
    """The head whose error is the greatest multiple of its budget."""
    ratio = error / budget
    # 0/0 is a row that is exact and has to be: nothing is wrong with it.
    return int(ratio.nan_to_num(nan=0.0, posinf=math.inf).argmax())

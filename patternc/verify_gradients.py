"""The gradients of every backend against those of the reference, error beside budget.

In: a kernel, names of backends, a device. Out: one `Result` for each backend, dtype,
size and gradient. Not its job: the output (`patternc.verify`, whose rules these are),
autograd on top of a backend (`patternc.ops.function`).

A backend is run as the operators run it: forward for gradients, then backward. The
golden gradients are autograd's of the reference in float64. Budgets are those of
`verify`: 10 times the mean error of the reference's gradients in float32; in 16 bits
twice the greatest error of attention computed in that dtype throughout, plus twice what
adding and taking away 0.3 costs. The difference `dp - delta` of a row that sees one key
is 0, but for one rounding of its terms; that much is allowed everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Unpack

import torch
from torch import Tensor

from patternc.backends.reference import ReferenceBackend, attend, working_dtype
from patternc.backends.rows import Invocation
from patternc.diagnostics import Diagnostic
from patternc.ops.program import Program, Site, program_name
from patternc.plan.kernel import Kernel
from patternc.samples import Sample
from patternc.verify import (
    SLACK,
    USUAL_CALLS,
    Calls,
    Measure,
    Quantity,
    Result,
    error_of,
    finer,
    load,
    noise_of,
    result_of,
    rounding,
    samples,
)

Gradients = dict[str, Tensor]

INPUT_SLACK = 3
"""In 16 bits, how many times plain attention's error the gradient of an input may have.

It is one sum over whole rows, so its error is one draw, not the greatest of many.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A call, and the gradients of its output and LSE, float64 like the call's."""

    kernel: Kernel
    call: Sample
    d_out: Tensor
    d_lse: Tensor

    @property
    def learned(self) -> list[str]:
        """The floating inputs."""
        inputs = self.call.inputs
        return [name for name, x in inputs.items() if x.dtype.is_floating_point]

    def tensors(self, dtype: torch.dtype, wide: torch.dtype) -> Gradients:
        """q, k and v in `dtype`, the floating inputs in `wide`."""
        call = self.call
        own = {"q": call.q.to(dtype), "k": call.k.to(dtype), "v": call.v.to(dtype)}
        return own | {name: call.inputs[name].to(wide) for name in self.learned}

    def upstream(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """The gradients of the output and, if it is defined, of the LSE."""
        d_lse = self.d_lse.to(working_dtype(dtype)) if self.call.has_lse else None
        return self.d_out.to(dtype), d_lse


def gradients_each(
    kernel: Kernel, names: Sequence[str], device: str = "cpu", **calls: Unpack[Calls]
) -> Iterator[Result]:
    """The results as they come: sizes, then dtypes, then backends, then gradients.

    Those of q, k, v and of every floating input; heads of k and v are key/value heads,
    and an input counts as one. A gradient that a backend refuses is left out, see
    `refusals`. Errors are those of `verify.verify_each`.
    """
    programs = {name: _program(kernel, name) for name in names}
    for call, dtype in samples(kernel, device, calls):
        step = _step(kernel, call, dtype, calls.get("seed", USUAL_CALLS["seed"]))
        golden = _by_definition(step, torch.float64)
        budgets = _budgets(step, golden, dtype)
        for name, program in programs.items():
            mine = _by_program(step, program, dtype)
            for of, (measure, budget) in budgets.items():
                if of in mine:
                    error = error_of(mine[of], golden[of], measure)
                    kind = Quantity.GRADIENT
                    yield result_of(name, call, dtype, kind, error, budget, of)


def verify_gradients(
    kernel: Kernel, names: Sequence[str], device: str = "cpu", **calls: Unpack[Calls]
) -> list[Result]:
    """All results of `gradients_each`."""
    return list(gradients_each(kernel, names, device, **calls))


def refusals(kernel: Kernel, name: str) -> list[Diagnostic]:
    """Why a backend does not compute some gradients of this program, if so."""
    program = _program(kernel, name)
    floats = [x.name for x in kernel.attention.inputs if x.element.value == "float"]
    found = [program.refuse_gradients([one]) for one in floats]
    return [refusal for refusal in found if refusal is not None]


def _program(kernel: Kernel, name: str) -> Program:
    """Raises `PatternError` if the backend refuses the kernel."""
    return Program(program_name(kernel, name), kernel, load(kernel, name))


def _step(kernel: Kernel, call: Sample, dtype: torch.dtype, seed: int) -> Step:
    """A seeded step; the gradients of the output hold values of `dtype`."""
    generator = torch.Generator().manual_seed(seed + 1)
    rows, device = call.q.shape[:3], call.q.device
    d_out = torch.randn((*rows, call.v.shape[3]), generator=generator)
    d_lse = torch.randn(rows, generator=generator)
    return Step(
        kernel, call, d_out.to(dtype).double().to(device), d_lse.double().to(device)
    )


def _by_program(step: Step, program: Program, dtype: torch.dtype) -> Gradients:
    """What the operators compute, float64 on the CPU, without refused gradients."""
    call, wide = step.call, working_dtype(dtype)
    own = step.tensors(dtype, wide)
    inputs = [own.get(name, x) for name, x in call.inputs.items()]
    q, k, v = (own[name] for name in "qkv")
    site = Site(tuple(call.params.values()), call.q_offset, call.scale)
    wanted = [
        number
        for number, name in enumerate(call.inputs)
        if name in own and program.refuse_gradients([name]) is None
    ]
    with torch.no_grad():
        results = program.run_for_gradients(q, k, v, inputs, site)
        kept = results[2:] if program.keeps_core else results[:2]
        upstream = step.upstream(dtype)
        core, core_lse = kept[0], kept[1]
        assert core is not None and core_lse is not None  # `results` are all there
        found = program.gradients(
            q, k, v, inputs, (core, core_lse), *upstream, site, wanted
        )
    order = [*"qkv", *(list(call.inputs)[number] for number in wanted)]
    return {name: _settled(name, x) for name, x in zip(order, found, strict=True)}


def _by_definition(step: Step, dtype: torch.dtype) -> Gradients:
    """Autograd of the reference, float64 on the CPU."""
    call = step.call
    run = partial(
        ReferenceBackend().load(step.kernel),
        scale=call.scale,
        q_offset=call.q_offset,
        params=call.params,
        return_lse=True,
    )

    def results(q: Tensor, k: Tensor, v: Tensor, inputs: Gradients) -> list[Tensor]:
        found = run(q, k, v, inputs=inputs)
        return [*found]

    return _pulled_back(step, dtype, working_dtype(dtype), results)


def _in_dtype(step: Step, dtype: torch.dtype) -> Gradients:
    """The same with every step of the definition rounded to `dtype`."""
    call = step.call
    invocation = Invocation(
        step.kernel.attention, call.scale, call.q_offset, call.k.shape[2], call.params
    )

    def results(q: Tensor, k: Tensor, v: Tensor, inputs: Gradients) -> list[Tensor]:
        return [*attend(invocation, q, k, v, inputs)]

    return _pulled_back(step, dtype, dtype, results)


def _pulled_back(
    step: Step,
    dtype: torch.dtype,
    wide: torch.dtype,
    run: object,
) -> Gradients:
    """The gradients of what `run` computes of q, k, v and the inputs."""
    assert callable(run)
    own = step.tensors(dtype, wide)
    leaves = {name: x.detach().requires_grad_() for name, x in own.items()}
    inputs = {**step.call.inputs, **{name: leaves[name] for name in step.learned}}
    output, lse = run(leaves["q"], leaves["k"], leaves["v"], inputs)
    d_out, d_lse = step.upstream(dtype)
    ends, starts = [output], [d_out]
    if d_lse is not None:
        ends.append(lse)
        starts.append(d_lse.to(lse.dtype))
    found = torch.autograd.grad(ends, [*leaves.values()], starts, allow_unused=True)
    return {
        name: _settled(name, torch.zeros_like(leaf) if x is None else x)
        for (name, leaf), x in zip(leaves.items(), found, strict=True)
    }


def _settled(name: str, gradient: Tensor) -> Tensor:
    """[B, H, ...] as float64 on the CPU; that of an input is one head's, [1, 1, n]."""
    exact = gradient.detach().double().cpu()
    return exact if name in ("q", "k", "v") else exact.reshape(1, 1, -1)


def _budgets(
    step: Step, golden: Gradients, dtype: torch.dtype
) -> dict[str, tuple[Measure, Tensor]]:
    """How to measure each gradient, and its budget for each head."""
    sizes = _term_sizes(step)
    if dtype in (torch.float64, torch.float32):
        single = _by_definition(step, torch.float32)
        found = {}
        for name, true in golden.items():
            budget = SLACK * error_of(single[name], true, Measure.MEAN)
            budget = budget + rounding(true) + sizes[name]
            found[name] = (Measure.MEAN, budget * finer(dtype))
        return found
    plain = _in_dtype(step, dtype)
    return {
        name: (
            Measure.GREATEST,
            (INPUT_SLACK if name in step.learned else 2)
            * error_of(plain[name], true, Measure.GREATEST)
            + 2 * noise_of(true, dtype)
            + sizes[name],
        )
        for name, true in golden.items()
    }


def _term_sizes(step: Step) -> dict[str, Tensor]:
    """One float32 rounding of the terms whose sum a gradient is, as a mean, [1].

    `dp` and `delta` are sums of products of gradients and values; times a query or key
    and the scale they are terms of dq and dk, however much of them cancels.
    """
    call = step.call
    q, k, v, d_out = (x.abs() for x in (call.q, call.k, call.v, step.d_out))
    if not (q.numel() and k.numel()):
        return dict.fromkeys([*"qkv", *step.learned], torch.zeros(1).double())
    products = d_out.mean((0, 1, 2)) @ v.mean((0, 1, 2)) + 1  # and d_lse
    each = 2 * torch.finfo(torch.float32).eps * products.cpu()
    share = call.q.shape[1] * call.q.shape[2] / (call.k.shape[1] * call.k.shape[2])
    found = {
        "q": each * abs(call.scale) * k.mean().cpu(),
        "k": each * abs(call.scale) * q.mean().cpu() * share,
        "v": torch.finfo(torch.float32).eps * d_out.mean().cpu() * share,
    }
    rows = q.shape[0] * q.shape[1] * q.shape[2]
    found |= dict.fromkeys(step.learned, each * rows**0.5)
    return {name: size.reshape(1) for name, size in found.items()}

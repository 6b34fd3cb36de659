"""One training step by the generated kernels and by autograd of the definition.

In: a kernel and the size of a call. Out: gradients by name, and how far two sets of
them are apart. Not its job: programs (`programs`, `data_programs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from patternc.backends.declared import declarations
from patternc.backends.input_checks import check_inputs
from patternc.backends.reference import ReferenceBackend
from patternc.backends.triton.load import TritonAttention
from patternc.plan.kernel import Kernel
from patternc.verify import SLACK

Gradients = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Step:
    """A call and the gradients that come back to it, in float32."""

    kernel: Kernel
    q: Tensor
    k: Tensor
    v: Tensor
    q_offset: int
    inputs: Mapping[str, Tensor]
    d_out: Tensor
    d_lse: Tensor

    @property
    def learned(self) -> list[str]:
        """The floating inputs that have a gradient."""
        return [name for name, x in self.inputs.items() if x.is_floating_point()]

    def run(
        self, q: Tensor, k: Tensor, v: Tensor, inputs: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The definition."""
        found = ReferenceBackend().load(self.kernel)(
            q,
            k,
            v,
            scale=0.125,
            q_offset=self.q_offset,
            params=self.params,
            return_lse=True,
            inputs=inputs,
        )
        assert isinstance(found, tuple)
        return found

    @property
    def params(self) -> dict[str, int]:
        """The defaults of run-time parameters."""
        return {p.name: p.default or 0 for p in self.kernel.attention.params}


def step_of(
    kernel: Kernel,
    size: tuple[int, int, int],
    given: Mapping[str, Tensor],
    batch: int = 2,
    dim: int = 64,
) -> Step:
    """A seeded step; `given` are the inputs as a user gives them, if there are any."""
    attention = kernel.attention
    n_q, n_k, q_offset = size
    generator = torch.Generator().manual_seed(n_q + 1000 * n_k)

    def normal(heads: int, *shape: int) -> Tensor:
        return torch.randn((batch, heads, *shape), generator=generator)

    return Step(
        kernel,
        normal(attention.heads, n_q, dim),
        normal(attention.kv_heads, n_k, dim),
        normal(attention.kv_heads, n_k, dim),
        q_offset,
        _checked(kernel, size, given, batch) if given else {},
        normal(attention.heads, n_q, dim),
        normal(attention.heads, n_q),
    )


def _checked(
    kernel: Kernel, size: tuple[int, int, int], given: Mapping[str, Tensor], batch: int
) -> dict[str, Tensor]:
    """The inputs as an attention hands them to its backend."""
    attention = kernel.attention
    return check_inputs(
        attention.name,
        declarations(attention),
        dict(given),
        batch=batch,
        heads=attention.heads,
        kv_heads=attention.kv_heads,
        n_q=size[0],
        n_k=size[1],
        q_offset=size[2],
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def by_definition(step: Step, dtype: torch.dtype) -> Gradients:
    """Autograd of the dense definition."""
    tensors = {"q": step.q, "k": step.k, "v": step.v}
    tensors |= {name: step.inputs[name] for name in step.learned}
    leaves = {
        name: x.detach().to(dtype).requires_grad_() for name, x in tensors.items()
    }
    inputs = {**step.inputs, **{name: leaves[name] for name in step.learned}}
    out, lse = step.run(leaves["q"], leaves["k"], leaves["v"], inputs)
    return _pulled_back(step, out, lse, leaves)


def by_kernels(
    step: Step, loaded: TritonAttention, wanted: tuple[str, ...] = ()
) -> Gradients:
    """The kernels, and autograd of `finish` alone."""
    common = {"q_offset": step.q_offset, "params": step.params, "inputs": step.inputs}
    tensors = (step.q, step.k, step.v)
    out, lse = loaded.attend(*tensors, scale=0.125, **common)  # type: ignore[arg-type]
    leaves = {"out": out, "lse": lse, "v": step.v}
    leaves |= {name: step.inputs[name] for name in step.learned}
    leaves = {name: x.detach().clone().requires_grad_() for name, x in leaves.items()}
    inputs = {**step.inputs, **{name: leaves[name] for name in step.learned}}
    finished = loaded.finish(
        leaves["out"],
        leaves["lse"],
        leaves["v"],
        q_offset=step.q_offset,
        params=step.params,
        inputs=inputs,
    )
    found = _pulled_back(step, *finished, leaves)
    *main, of_inputs = loaded.gradients(
        *tensors,
        out,
        lse,
        found.pop("out"),
        found.pop("lse"),
        scale=0.125,
        wanted=wanted,
        **common,  # type: ignore[arg-type]
    )
    for name, gradient in {**dict(zip("qkv", main, strict=True)), **of_inputs}.items():
        found[name] = gradient + found.get(name, 0)
    return found


def _pulled_back(
    step: Step, out: Tensor, lse: Tensor, leaves: Mapping[str, Tensor]
) -> Gradients:
    """What `d_out` and `d_lse` become; no gradient comes from an LSE of no sum."""
    is_number = lse.isfinite()
    loss = (out * step.d_out).sum()
    loss = loss + (torch.where(is_number, lse, 0) * step.d_lse).sum()
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


def excess(step: Step, mine: Gradients) -> dict[str, float]:
    """Each error as a multiple of its budget, FlexAttention's rule for float32.

    The mean error may be `SLACK` times that of the definition in float32, plus one
    rounding of numbers of that size.
    """
    true, single = (by_definition(step, x) for x in (torch.float64, torch.float32))
    found = {}
    for name in mine:
        budget = SLACK * _mean((single[name] - true[name]).abs())
        budget += torch.finfo(torch.float32).eps * _mean(true[name].abs())
        error = _mean((mine[name].double() - true[name]).abs())
        found[name] = 0.0 if error == 0 else error / budget if budget else torch.inf
    return found


def _mean(x: Tensor) -> float:
    return float(x.mean()) if x.numel() else 0.0


def with_tensors(step: Step, **tensors: Tensor) -> Step:
    """The same step with other tensors."""
    return replace(step, **tensors)  # type: ignore[arg-type]

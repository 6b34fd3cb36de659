"""The generated kernel, in Triton's interpreter, against the dense definition."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from patternc.backends.reference import ReferenceBackend
from patternc.backends.triton.load import TritonBackend
from patternc.plan.kernel import Schedule
from patternc.store import Store
from tests.backends.triton.programs import PROGRAMS, SMALL, kernel_of, module_of

TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3}
"""About ten times the greatest error of dense attention in the dtype, at these sizes."""

CASES = [
    (1, 1, None),
    (70, 101, None),
    (37, 101, -13),
    (37, 101, 90),
    (20, 50, -200),
    (16, 0, None),
    (0, 16, None),
]


def inputs(
    module: ModuleType,
    n_q: int,
    n_k: int,
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
    dim: int = 64,
) -> tuple[Tensor, Tensor, Tensor]:
    """Seeded normal q, k and v."""
    generator = torch.Generator().manual_seed(n_q + 1000 * n_k)

    def normal(heads: int, length: int) -> Tensor:
        shape = (batch, heads, length, dim)
        return torch.randn(shape, generator=generator).to(dtype)

    kv = module.KV_HEADS
    return normal(module.HEADS, n_q), normal(kv, n_k), normal(kv, n_k)


def check(
    name: str,
    module: ModuleType,
    tensors: tuple[Tensor, Tensor, Tensor],
    q_offset: int | None = None,
    scale: float | None = None,
    **params: int,
) -> None:
    """`forward` and the module's own reference equal the definition."""
    q, k, v = tensors
    n_q, n_k, dim = q.shape[2], k.shape[2], q.shape[3]
    given = {"scale": scale, "q_offset": q_offset, "return_lse": True, **params}
    declared = {p.name: p.default or 0 for p in kernel_of(name).attention.params}
    wanted = ReferenceBackend().load(kernel_of(name))(
        q,
        k,
        v,
        scale=dim**-0.5 if scale is None else scale,
        q_offset=n_k - n_q if q_offset is None else q_offset,
        params={**declared, **params},
        return_lse=True,
    )
    limit = TOLERANCE[q.dtype]
    for function in (module.forward, module.reference):
        output, lse = function(q, k, v, **given)
        assert output.dtype == q.dtype
        assert lse.dtype == torch.float32
        assert output.is_contiguous()
        torch.testing.assert_close(output, wanted[0], atol=limit, rtol=limit)
        torch.testing.assert_close(lse, wanted[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_the_definition(name: str, tmp_path: Path) -> None:
    module = module_of(name, tmp_path)
    for n_q, n_k, q_offset in CASES:
        check(name, module, inputs(module, n_q, n_k), q_offset)


@pytest.mark.parametrize("schedule", [Schedule(16, 64), Schedule(128, 64)])
@pytest.mark.parametrize("name", ["causal", "duo", "mixed"])
def test_tiles_do_not_change_the_result(
    name: str, schedule: Schedule, tmp_path: Path
) -> None:
    module = module_of(name, tmp_path, schedule)
    check(name, module, inputs(module, 70, 150, dim=128), -7)


def test_half_precision_batches_and_scales(tmp_path: Path) -> None:
    module = module_of("duo", tmp_path)
    check("duo", module, inputs(module, 40, 40, torch.float16, batch=2))
    for scale in (0.3, 0.0, -0.5):
        check("duo", module, inputs(module, 20, 40), scale=scale)


def test_run_time_parameters(tmp_path: Path) -> None:
    module = module_of("window", tmp_path)
    tensors = inputs(module, 30, 60)
    for width in (1, 17, 50, 1000, -3, 2**30, -(2**30)):
        check("window", module, tensors, w=width)


def test_rows_without_keys_are_zero(tmp_path: Path) -> None:
    module = module_of("blind", tmp_path)
    output, lse = module.forward(*inputs(module, 100, 100), return_lse=True)
    assert bool((output[:, :, :30] == 0).all())
    assert bool((lse[:, :, :30] == -torch.inf).all())
    assert bool(lse[:, :, 40:90].isfinite().all())


def _transposed(tensor: Tensor) -> Tensor:
    """The same values in the memory order [B, N, H, D]."""
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def _columns_first(tensor: Tensor) -> Tensor:
    return tensor.transpose(2, 3).contiguous().transpose(2, 3)


def _misaligned(tensor: Tensor) -> Tensor:
    """The same values, starting 4 bytes after a multiple of 16."""
    flat = torch.empty(tensor.numel() + 8, dtype=tensor.dtype)
    start = next(i for i in range(8) if flat[i:].data_ptr() % 16 == 4)
    view = flat[start : start + tensor.numel()].view(tensor.shape)
    return view.copy_(tensor)


def _every_other(tensor: Tensor) -> Tensor:
    return tensor.repeat_interleave(2, dim=2)[:, :, ::2]


def _odd_rows(tensor: Tensor) -> Tensor:
    """Rows that are 67 elements apart."""
    wide = torch.zeros(*tensor.shape[:3], 67)
    wide[..., :64] = tensor
    return wide[..., :64]


def _shared(tensor: Tensor) -> Tensor:
    """One head's values for all heads, without a copy."""
    return tensor[:, :1].expand_as(tensor)


@pytest.mark.parametrize(
    ("view", "access"),
    [
        (_transposed, "descriptor"),
        (_every_other, "descriptor"),
        (_columns_first, "any"),
        (_misaligned, "any"),
        (_odd_rows, "any"),
        (_shared, "any"),
    ],
)
def test_views_of_any_strides(
    view: Callable[[Tensor], Tensor], access: str, tmp_path: Path
) -> None:
    module = module_of("duo", tmp_path)
    q, k, v = inputs(module, 40, 50)
    views = (view(q), view(k), view(v))
    assert module.access_of(*views) == access
    check("duo", module, views)


@pytest.mark.parametrize("access", ["aligned", "any"])
def test_pointer_loads(
    access: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of("mixed", tmp_path)
    monkeypatch.setattr(module, "access_of", lambda q, k, v: access)
    for q_offset in (None, -13):
        check("mixed", module, inputs(module, 37, 70), q_offset)


def test_the_backend_runs_the_module(tmp_path: Path) -> None:
    kernel = kernel_of("window")
    backend = TritonBackend(Store(tmp_path))
    assert backend.refuse(kernel) is None
    module = module_of("window", tmp_path, SMALL)
    q, k, v = inputs(module, 20, 30)
    arguments = {"scale": 0.1, "q_offset": 3, "params": {"w": 9}, "return_lse": False}
    output = backend.load(kernel)(q, k, v, **arguments)  # type: ignore[arg-type]
    wanted = ReferenceBackend().load(kernel)(q, k, v, **arguments)  # type: ignore[arg-type]
    assert isinstance(output, Tensor) and isinstance(wanted, Tensor)
    torch.testing.assert_close(output, wanted, atol=1e-5, rtol=1e-5)


def test_refusals_name_the_argument(tmp_path: Path) -> None:
    module = module_of("window", tmp_path)
    q, k, v = inputs(module, 8, 8)
    wide = [torch.zeros(*x.shape[:3], 257) for x in (q, k, v)]
    with pytest.raises(ValueError, match="`q`: .*D from 1 to 256, got 257"):
        module.forward(*wide)
    with pytest.raises(ValueError, match="`v`: .*D_v from 1 to 256, got 257"):
        module.forward(q, k, wide[2])
    with pytest.raises(TypeError, match="interpreter.*got torch.bfloat16"):
        module.forward(*(x.bfloat16() for x in (q, k, v)))
    with pytest.raises(TypeError, match="`q`: expected .*got torch.float64"):
        module.forward(*(x.double() for x in (q, k, v)))
    with pytest.raises(TypeError, match="`width` is not a run-time parameter"):
        module.forward(q, k, v, width=3)
    with pytest.raises(ValueError, match="`q_offset`: expected no query past"):
        module.forward(q, k, v, q_offset=2**30)
    with pytest.raises(ValueError, match="autograd"):
        module.forward(q.requires_grad_(), k, v)

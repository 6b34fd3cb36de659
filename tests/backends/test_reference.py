"""The dense definition, against a loop over single rows and against PyTorch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor

from patternc.backends.reference import ReferenceBackend
from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import Attention
from patternc.plan.kernel import Kernel
from tests.kernels import CAUSAL, attention_of, kernel_of, per_head, streaming, window
from tests.strategies import Size, attentions, sizes


def inputs(
    kernel: Kernel, n_q: int, n_k: int, dtype: torch.dtype = torch.float64, dim: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    """Seeded q, k, v of batch 2."""
    generator = torch.Generator().manual_seed(1)
    attention = kernel.attention

    def normal(heads: int, length: int) -> Tensor:
        drawn = torch.randn(2, heads, length, dim, generator=generator)
        return drawn.to(dtype)

    return (
        normal(attention.heads, n_q),
        normal(attention.kv_heads, n_k),
        normal(attention.kv_heads, n_k),
    )


def reference(
    kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, q_offset: int | None = None
) -> tuple[Tensor, Tensor]:
    """Output and LSE at scale 1/2."""
    offset = k.shape[2] - q.shape[2] if q_offset is None else q_offset
    found = ReferenceBackend().load(kernel)(
        q, k, v, scale=0.5, q_offset=offset, params={}, return_lse=True
    )
    assert isinstance(found, tuple)
    return found


def row_by_row(
    attention: Attention, q: Tensor, k: Tensor, v: Tensor, q_offset: int
) -> tuple[Tensor, Tensor]:
    """The same from the visible keys of each row alone: no mask, no -inf, no matrix."""
    output, lse = torch.zeros_like(q), torch.full_like(q[..., 0], -math.inf)
    for head in range(attention.heads):
        mask = attention.case_of(head).mask
        seen = dense_mask(mask, head, q.shape[2], k.shape[2], q_offset)
        kv = head // (attention.heads // attention.kv_heads)
        for row in range(q.shape[2]):
            keys = torch.from_numpy(seen[row]).nonzero().flatten()
            for item in range(len(q)) if len(keys) else ():
                logits = k[item, kv, keys] @ q[item, head, row] * 0.5
                weights = (logits - logits.max()).exp()
                output[item, head, row] = weights / weights.sum() @ v[item, kv, keys]
                lse[item, head, row] = logits.max() + weights.sum().log()
    return output, lse


@given(attentions(affine=False), sizes)
def test_it_is_the_attention_of_each_row_over_its_visible_keys(
    attention: Attention, size: Size
) -> None:
    kernel = Kernel(attention, (), kernel_of(CAUSAL).schedule)
    n_q, n_k = min(size.n_q, 20), min(size.n_k, 33)
    offset = n_k - n_q if size.q_offset is None else size.q_offset
    q, k, v = inputs(kernel, n_q, n_k)
    expected = row_by_row(attention, q, k, v, offset)
    found = reference(kernel, q, k, v, offset)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_causal_mask_gives_what_pytorch_gives() -> None:
    q, k, v = inputs(kernel_of(CAUSAL, 4, 2), 9, 9)
    output, _ = reference(kernel_of(CAUSAL, 4, 2), q, k, v)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, scale=0.5, enable_gqa=True
    )
    torch.testing.assert_close(output, expected)


def test_a_row_without_keys_gives_zero_and_minus_infinity() -> None:
    kernel = kernel_of(window(3))
    q, k, v = inputs(kernel, 6, 6)
    output, lse = reference(kernel, q, k, v, q_offset=5)
    assert (output[:, :, 3:] == 0).all()
    assert (lse[:, :, 3:] == -math.inf).all()
    assert lse[:, :, :3].isfinite().all()


@pytest.mark.parametrize("mask", [CAUSAL, window(3), per_head(3), streaming(2, 3)])
def test_gradients_are_those_of_finite_differences(mask: object) -> None:
    kernel = kernel_of(mask)  # type: ignore[arg-type]
    q, k, v = (x.requires_grad_() for x in inputs(kernel, 5, 4))

    def both(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        output, lse = reference(kernel, q, k, v, q_offset=-1)  # row 0 has no key
        return output, lse.nan_to_num(neginf=0.0)

    assert torch.autograd.gradcheck(both, (q, k, v))


def test_no_length_at_all_is_no_error() -> None:
    kernel = kernel_of(CAUSAL)
    for n_q, n_k in ((0, 5), (5, 0), (0, 0)):
        q, k, v = (x.requires_grad_() for x in inputs(kernel, n_q, n_k))
        output, lse = reference(kernel, q, k, v)
        assert output.shape == q.shape
        assert (output == 0).all()
        assert (lse == -math.inf).all()
        torch.autograd.backward(output.sum())
        assert q.grad is not None
        assert (q.grad == 0).all()


def test_a_nan_at_an_invisible_key_reaches_no_row_that_does_not_see_it() -> None:
    kernel = kernel_of(window(2))
    q, k, v = inputs(kernel, 6, 6)
    expected, _ = reference(kernel, q, k, v)
    k[:, :, 2], v[:, :, 3] = math.nan, math.nan
    v[:, :, 0, 0] = math.inf
    q.requires_grad_()
    output, _ = reference(kernel, q, k, v)
    bad = output.isnan()
    assert bad[:, :, 2:5].all()
    assert not bad[:, :, [0, 1, 5]].any()
    assert (output[:, :, :2, 0] == math.inf).all()
    torch.testing.assert_close(output[:, :, 5], expected[:, :, 5])
    torch.autograd.backward(output[:, :, 5].sum())
    assert q.grad is not None
    assert q.grad[:, :, 5].isfinite().all()  # the others see it, as in SDPA
    assert (q.grad[:, :, 5] != 0).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_inputs_are_computed_in_float32_and_rounded_once(
    dtype: torch.dtype,
) -> None:
    kernel = kernel_of(CAUSAL)
    q, k, v = inputs(kernel, 40, 40, dtype)
    output, lse = reference(kernel, q, k, v)
    wide, wide_lse = reference(kernel, q.float(), k.float(), v.float())
    assert output.dtype == dtype
    assert lse.dtype == torch.float32
    assert torch.equal(output, wide.to(dtype))
    assert torch.equal(lse, wide_lse)


def test_autocast_does_not_lower_the_precision() -> None:
    kernel = kernel_of(CAUSAL)
    q, k, v = inputs(kernel, 8, 8, torch.float32)
    expected, _ = reference(kernel, q, k, v)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, _ = reference(kernel, q, k, v)
    assert torch.equal(output, expected)


def test_head_h_reads_kv_head_h_over_the_group_size() -> None:
    kernel = Kernel(attention_of(CAUSAL, 6, 2), (), kernel_of(CAUSAL).schedule)
    q, k, v = inputs(kernel, 3, 3)
    v[:, 1] = 0
    output, _ = reference(kernel, q, k, v)
    assert (output[:, 3:] == 0).all()
    assert (output[:, :3] != 0).all()

"""Programs with inputs, layouts, scores and outputs, from text on disk to tensors."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import patternc

TEXT = """
layout grid = text[10] + image[y = 6, x = 5]

attention packed {
    heads 4 kv 2
    input doc[k] : int sorted
    mask  causal & doc[q] == doc[k]
    assert mask within causal
    assert every q has k
    assert density < 0.3 at N = 40
}

attention blocks {
    heads 2
    input keep[h, q // 16, k // 16] : bool
    mask  causal & keep[h, q // 16, k // 16]
    assert every q has k
}

attention prefixed {
    heads 2
    input prefix[b] : int
    mask  causal | k < prefix
}

attention near {
    heads 2
    layout grid
    mask  q in text | k in text | (abs(q.y - k.y) <= 1 & abs(q.x - k.x) <= 1)
    order image by tile(y = 2, x = 2)
}

attention biased {
    heads 4
    input slope[h] : float
    mask  causal
    score softcap(s, 5.0) + slope[h] * (k - q)
    sink  slope[h]
}

attention gated(u = 0.4) {
    heads 2
    mask   full
    output (1 - u) * o + u * v  for h in {1}
}

attention squared {
    heads 2
    mask    causal
    weights relu2(1.0)  for h in {1}
}
"""

N = 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "data.pat"
    file.write_text(TEXT)
    return file


def tensors(heads: int, kv: int, n: int = N) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((2, heads, n, 8), (2, kv, n, 8), (2, kv, n, 8))
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    return q, k, v


def documents(*starts: int) -> Tensor:
    doc = torch.zeros(N, dtype=torch.int64)
    doc[list(starts)] = 1
    return doc.cumsum(0)


def dense(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=visible, enable_gqa=True
    )


@pytest.mark.parametrize("backend", ["reference", "tiled"])
def test_documents_with_and_without_a_batch_axis(path: Path, backend: str) -> None:
    attn = patternc.load(path, "packed", backend=backend)
    q, k, v = tensors(4, 2)
    one = documents(13, 30)
    assert attn.mask(N, N, doc=one).shape == (4, N, N)
    expected = dense(q, k, v, attn.mask(N, N, doc=one))
    torch.testing.assert_close(attn(q, k, v, doc=one), expected)
    torch.testing.assert_close(attn(q, k, v, doc=one[None]), expected)
    both = torch.stack([one, documents(5)])
    masks = attn.mask(N, N, doc=both)
    assert masks.shape == (2, 4, N, N)
    assert torch.equal(masks[0], attn.mask(N, N, doc=one))
    found = attn(q, k, v, doc=both.to(torch.int32))
    torch.testing.assert_close(found, dense(q, k, v, masks))
    torch.testing.assert_close(found[0], expected[0])
    assert not torch.allclose(found[1], expected[1])


def test_a_table_of_blocks_and_chunked_queries(path: Path) -> None:
    attn = patternc.load(path, "blocks")
    q, k, v = tensors(2, 2)
    keep = torch.ones(2, 3, 3, dtype=torch.bool).tril()
    keep[1, 2, 0] = keep[0, 1, 0] = False
    whole = attn(q, k, v, keep=keep)
    visible = keep.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :N, :N]
    visible = visible & torch.ones(N, N, dtype=torch.bool).tril()
    assert torch.equal(attn.mask(N, N, keep=keep), visible)
    torch.testing.assert_close(whole, dense(q, k, v, visible))
    # A table over the queries goes by their positions, so a chunk takes the same one.
    torch.testing.assert_close(attn(q[:, :, 20:], k, v, keep=keep), whole[:, :, 20:])


def test_a_number_for_each_batch_element(path: Path) -> None:
    attn = patternc.load(path, "prefixed")
    q, k, v = tensors(2, 2)
    prefix = torch.tensor([3, 25])
    masks = attn.mask(N, N, prefix=prefix)
    assert masks.shape == (2, 2, N, N)
    assert masks.sum((1, 2, 3)).tolist() == [
        2 * (N * (N + 1) // 2 + n * (n - 1) // 2) for n in (3, 25)
    ]
    torch.testing.assert_close(attn(q, k, v, prefix=prefix), dense(q, k, v, masks))


def test_a_layout_has_its_own_length_and_an_order_changes_nothing(path: Path) -> None:
    attn = patternc.load(path, "near", backend="tiled").schedule(block_q=16, block_k=16)
    q, k, v = tensors(2, 2)
    visible = attn.mask(N, N)
    at = [divmod(token, 5) for token in range(30)]
    for i, (y, x) in enumerate(at):
        near = [abs(y - b) <= 1 and abs(x - a) <= 1 for b, a in at]
        assert visible[0, 10 + i, 10:].tolist() == near
    assert visible[:, :10].all()
    assert visible[:, :, :10].all()
    torch.testing.assert_close(attn(q, k, v), dense(q, k, v, visible))
    last = attn(q[:, :, 30:], k, v)
    torch.testing.assert_close(last, dense(q, k, v, visible)[:, :, 30:])
    with pytest.raises(ValueError, match="near: `k`: expected the 40 tokens .* got 39"):
        attn(q[:, :, 1:], k[:, :, 1:], v[:, :, 1:])
    with pytest.raises(ValueError, match="near: `q`: expected queries that end at"):
        attn(q[:, :, 30:], k, v, q_offset=0)
    with pytest.raises(ValueError, match="near: `k`: expected the 40 tokens .* got 50"):
        attn.mask(50, 50)


@pytest.mark.parametrize("backend", ["reference", "tiled"])
def test_a_score_and_a_sink(path: Path, backend: str) -> None:
    attn = patternc.load(path, "biased", backend=backend)
    q, k, v = tensors(4, 4)
    slope = torch.tensor([0.0, 0.1, 0.2, -0.1], requires_grad=True)
    output, lse = attn(q, k, v, slope=slope, return_lse=True)
    s = 5 * torch.tanh(q @ k.mT / math.sqrt(8) / 5)
    back = torch.arange(N) - torch.arange(N)[:, None]
    s = s + slope[:, None, None] * back
    s = s.masked_fill(back > 0, -math.inf)
    every = torch.cat([s, slope[:, None, None].expand(2, 4, N, 1)], dim=-1)
    torch.testing.assert_close(lse, every.logsumexp(-1))
    torch.testing.assert_close(output, every.softmax(-1)[..., :-1] @ v)
    (found,) = torch.autograd.grad(output.square().sum(), slope)
    wanted = (every.softmax(-1)[..., :-1] @ v).square().sum()
    (expected,) = torch.autograd.grad(wanted, slope)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["reference", "tiled"])
def test_an_output_with_the_own_value_row(path: Path, backend: str) -> None:
    attn = patternc.load(path, "gated", backend=backend)
    q, k, v = tensors(2, 2)
    plain = dense(q, k, v, torch.ones(N, N, dtype=torch.bool))
    expected = plain.clone()
    expected[:, 1] = 0.6 * plain[:, 1] + 0.4 * v[:, 1]
    torch.testing.assert_close(attn(q, k, v), expected)
    torch.testing.assert_close(
        attn(q[:, :, 7:9], k, v, q_offset=7), expected[:, :, 7:9]
    )
    with pytest.raises(ValueError, match="gated: `q`: expected every query among"):
        attn(q, k, v, q_offset=1)


def test_weights_without_a_sum_refuse_the_lse(path: Path) -> None:
    attn = patternc.load(path, "squared")
    q, k, v = tensors(2, 2)
    s = (q @ k.mT / math.sqrt(8)).relu().square().tril()
    torch.testing.assert_close(attn(q, k, v)[:, 1], (s @ v)[:, 1])
    with pytest.raises(
        ValueError, match="squared: `return_lse`: .* head 1 are not norm"
    ):
        attn(q, k, v, return_lse=True)


def test_a_wrong_input_is_named(path: Path) -> None:
    attn = patternc.load(path, "packed")
    q, k, v = tensors(4, 2)
    with pytest.raises(TypeError, match="packed: `doc`: expected a tensor of int, got"):
        attn(q, k, v)
    with pytest.raises(
        ValueError, match=r"`doc`: expected \[40\], .*\(k\), got \[39\]"
    ):
        attn(q, k, v, doc=documents()[1:])
    with pytest.raises(
        TypeError, match="`docs` is neither a run-time parameter nor an"
    ):
        attn(q, k, v, docs=documents())
    with pytest.raises(
        TypeError, match="`doc`: expected an integer dtype, got torch.f"
    ):
        attn.mask(N, N, doc=documents().float())


def test_check_looks_at_values_and_open_assertions(path: Path) -> None:
    attn = patternc.load(path, "packed")
    q, k, v = tensors(4, 2)
    good = documents(10, 20, 30)
    torch.testing.assert_close(
        attn(q, k, v, doc=good, check=True), attn(q, k, v, doc=good)
    )
    with pytest.raises(ValueError, match="`doc`: expected values that never fall"):
        attn(q, k, v, doc=good.flip(0), check=True)
    both = torch.stack([good, documents()])  # one document: 820 of 1600 pairs
    message = r"data.pat:10:5 fails .* density 0.5125 of 40 x 40 pairs, batch element 1"
    with pytest.raises(ValueError, match=message):
        attn(q, k, v, doc=both, check=True)
    attn(q, k, v, doc=both)
    blocks = patternc.load(path, "blocks")
    q, k, v = tensors(2, 2)
    keep = torch.ones(2, 3, 3, dtype=torch.bool)
    blocks(q, k, v, keep=keep, check=True)
    keep[1, 1] = False
    with pytest.raises(ValueError, match="data.pat:17:5 .* head 1, q = 16: the row is"):
        blocks(q, k, v, keep=keep, check=True)
    biased = patternc.load(path, "biased")
    q, k, v = tensors(4, 4)
    with pytest.raises(ValueError, match="biased: `slope`: expected finite .* got nan"):
        biased(q, k, v, slope=torch.tensor([0, math.nan, 0, 0]), check=True)


def test_check_looks_at_the_valid_lengths_of_segments(tmp_path: Path) -> None:
    file = tmp_path / "padded.pat"
    file.write_text(
        "layout pair = text[30, valid = length] + image[10]\n"
        "attention padded { heads 2 layout pair input length[b] : int mask full }\n"
    )
    attn = patternc.load(file)
    q, k, v = tensors(2, 2)
    attn(q, k, v, length=torch.tensor([30, 0]), check=True)
    message = "padded: `length`: expected 0 to 30 tokens of `text`, got 31, batch elem"
    with pytest.raises(ValueError, match=f"{message}ent 1"):
        attn(q, k, v, length=torch.tensor([30, 31]), check=True)


def test_every_call_may_give_a_layer_and_a_step_from_0_on(tmp_path: Path) -> None:
    file = tmp_path / "steps.pat"
    file.write_text(
        "attention steps {\n"
        "    heads 2 mask full for layer == 3 mask causal otherwise\n"
        "}\n"
    )
    attn = patternc.load(file)
    assert attn.mask(N, N, layer=3, step=7).all()
    assert not attn.mask(N, N, step=7).all()
    q, k, v = tensors(2, 2)
    plain = attn(q, k, v)
    torch.testing.assert_close(attn(q, k, v, layer=2, step=9), plain)
    for name in ("layer", "step"):
        with pytest.raises(ValueError, match=f"steps: `{name}`: .* at least 0, got -1"):
            attn(q, k, v, **{name: -1})  # type: ignore[call-overload]
        with pytest.raises(TypeError, match=f"steps: `{name}`: expected an integer"):
            attn(q, k, v, **{name: 0.5})  # type: ignore[call-overload]


def test_the_triton_backend_runs_them_or_says_which_clause_it_cannot(
    path: Path,
) -> None:
    for entry in ("packed", "biased", "gated", "squared"):
        try:
            patternc.load(path, entry, backend="triton")
        except patternc.PatternError as error:
            (item,) = error.diagnostics
            assert item.code == "unsupported"
            assert item.span.line in range(1, TEXT.count("\n"))
            assert "tiled" in item.help

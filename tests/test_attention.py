"""The object that a user calls, from text on disk to tensors."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import patternc
from patternc import backends
from patternc.backends.reference import ReferenceBackend

TEXT = """
attention streams(recent = 20) {
    heads 4 kv 2
    mask k <= q & q - k < recent            for g in {0}
    mask k <= q & (k < 3 | q - k < recent)  otherwise
}

attention chosen(recent: runtime = 20) {
    heads 2
    mask 0 <= q - k < recent
}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "example.pat"
    file.write_text(TEXT)
    return file


def tensors(heads: int, kv: int, n_q: int, n_k: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((1, heads, n_q, 8), (1, kv, n_k, 8), (1, kv, n_k, 8))
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    return q, k, v


def test_load_and_call(path: Path) -> None:
    attn = patternc.load(path, entry="streams")
    q, k, v = tensors(4, 2, 70, 70)
    output = attn(q, k, v)
    visible = attn.mask(70, 70)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=visible, enable_gqa=True
    )
    torch.testing.assert_close(output, expected)


def test_the_lse_comes_on_request(path: Path) -> None:
    attn = patternc.load(path, "streams")
    q, k, v = tensors(4, 2, 30, 50)
    output, lse = attn(q, k, v, return_lse=True)
    assert lse.shape == (1, 4, 30)
    logits = q @ k.repeat_interleave(2, 1).mT / math.sqrt(8)
    hidden = logits.masked_fill(~attn.mask(30, 50), -math.inf)
    torch.testing.assert_close(lse, hidden.logsumexp(-1))
    torch.testing.assert_close(output, attn(q, k, v))


def test_scale_and_offset_are_passed_on(path: Path) -> None:
    attn = patternc.load(path, "streams")
    q, k, v = tensors(4, 2, 30, 50)
    torch.testing.assert_close(attn(q, k, v, scale=0.5), attn(q / 2 * 8**0.5, k, v))
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=attn.mask(30, 50, 7), enable_gqa=True
    )
    torch.testing.assert_close(attn(q, k, v, q_offset=7), expected)
    assert not torch.allclose(attn(q, k, v), expected)


def test_a_parameter_given_to_load_is_bound(path: Path) -> None:
    attn = patternc.load(path, "streams", recent=2)
    assert attn.mask(9, 9)[0].sum() == 8 * 2 + 1
    with pytest.raises(TypeError, match="`recent` is not a run-time parameter"):
        attn.mask(9, 9, recent=3)


def test_a_run_time_parameter_is_given_at_the_call(path: Path) -> None:
    attn = patternc.load(path, "chosen")
    q, k, v = tensors(2, 2, 40, 40)
    narrow = attn(q, k, v, recent=1)
    torch.testing.assert_close(narrow, v)
    assert not torch.allclose(attn(q, k, v), narrow)
    assert attn.mask(40, 40, recent=3).sum() == 2 * (38 * 3 + 2 + 1)
    with pytest.raises(TypeError, match="chosen: `recnt` is not a run-time parameter"):
        attn(q, k, v, recnt=1)


def test_wrong_tensors_are_named(path: Path) -> None:
    attn = patternc.load(path, "chosen")
    q, k, v = tensors(2, 2, 4, 4)
    with pytest.raises(ValueError, match=r"chosen: `k`: expected \[B, 2, n_k, D\]"):
        attn(q, k[:, :1], v)
    with pytest.raises(TypeError, match="chosen: `q`: .*got list"):
        attn([q], k, v)  # type: ignore[call-overload]


def test_mask_checks_its_sizes(path: Path) -> None:
    attn = patternc.load(path, "chosen")
    with pytest.raises(ValueError, match="`n_q`: expected a length .* got -1"):
        attn.mask(-1, 4)
    with pytest.raises(TypeError, match="`n_k`: expected an integer, got float"):
        attn.mask(4, 4.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`q_offset`: expected an integer, got bool"):
        attn.mask(4, 4, True)
    assert attn.mask(0, 4).shape == (2, 0, 4)
    assert attn.mask(4, 4).dtype == torch.bool


def test_a_schedule_changes_tiles_and_no_result(path: Path) -> None:
    attn = patternc.load(path, "streams")
    other = attn.schedule(block_q=32, block_k=np.int64(16))  # type: ignore[arg-type]
    assert other.kernel.schedule == patternc.Schedule(32, 16)
    assert attn.kernel.schedule == patternc.Schedule()
    q, k, v = tensors(4, 2, 70, 90)
    torch.testing.assert_close(other(q, k, v), attn(q, k, v))
    named = patternc.load(path, "streams", schedule=patternc.Schedule(32, 16))
    assert named.kernel == other.kernel


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"block_q": 48}, "`block_q`: expected a power of two from 16 to 1024, got 48"),
        ({"block_k": 8}, "`block_k`: expected a power of two from 16 to 1024, got 8"),
        ({"warps": 3}, "`warps`: expected a power of two from 1 to 32, got 3"),
        ({"stages": 0}, "`stages`: expected an integer from 1 to 8, got 0"),
        ({"block_q": -16}, "`block_q`: .* got -16"),
    ],
)
def test_a_wrong_schedule_is_refused(
    path: Path, numbers: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        patternc.load(path, "streams").schedule(**numbers)
    with pytest.raises(ValueError, match=message):
        patternc.load(path, "streams", schedule=patternc.Schedule(**numbers))


def test_a_schedule_of_no_integers_is_refused(path: Path) -> None:
    attn = patternc.load(path, "streams")
    with pytest.raises(TypeError, match="`block_q`: expected an integer, got float"):
        attn.schedule(block_q=64.0)  # type: ignore[arg-type]


def test_a_backend_can_be_named(path: Path) -> None:
    attn = patternc.load(path, "streams", backend="reference")
    q, k, v = tensors(4, 2, 40, 40)
    expected = ReferenceBackend().load(attn.kernel)(
        q, k, v, scale=8**-0.5, q_offset=0, params={}, return_lse=False
    )
    assert torch.equal(attn(q, k, v), expected)  # type: ignore[arg-type]
    assert attn.schedule(block_q=64).backend_name == "reference"
    torch.testing.assert_close(attn.backend("tiled")(q, k, v), expected)
    with pytest.raises(ValueError, match="unknown backend 'tile'; .*tiled, triton"):
        attn.backend("tile")


def test_the_default_backend_goes_by_the_device() -> None:
    assert backends.default_for("cuda") == "triton"
    assert backends.default_for("cpu") == "tiled"
    assert backends.default_for("mps") == "tiled"


def test_explain_tells_of_the_tiles(path: Path) -> None:
    text = patternc.load(path, "streams").explain()
    assert "streams" in text
    assert "for kt in range(" in text


def test_repr_is_one_line(path: Path) -> None:
    attn = patternc.load(path, "streams", backend="tiled")
    assert repr(attn) == (
        "<attention streams: 4 heads, 2 kv, tiles 64 x 64, backend tiled>"
    )


def test_errors_of_the_program_are_raised(tmp_path: Path) -> None:
    file = tmp_path / "wrong.pat"
    file.write_text("attention a { heads 1 mask kay <= q }")
    with pytest.raises(patternc.PatternError, match="wrong.pat:1:28: error"):
        patternc.load(file)
    file.write_text("attention a { heads 1 mask k <= q assert mask within q < k }")
    with pytest.raises(patternc.PatternError, match="wrong.pat:1"):
        patternc.load(file)
    with pytest.raises(patternc.PatternError):
        patternc.load(tmp_path / "none.pat")


def test_gradients_flow(path: Path) -> None:
    attn = patternc.load(path, "streams")
    q, k, v = (x.requires_grad_() for x in tensors(4, 2, 40, 40))
    torch.autograd.backward(attn(q, k, v).sum())
    for item in (q, k, v):
        assert item.grad is not None
        assert item.grad.isfinite().all()
        assert (item.grad != 0).any()


def test_importing_patternc_imports_no_torch() -> None:
    code = (
        "import sys, patternc; patternc.__version__; patternc.PatternError;"
        "patternc.Schedule; print({'torch', 'triton', 'sympy'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "set()"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        patternc.laod  # noqa: B018
    assert {"load", "Attention", "Schedule"} <= set(dir(patternc))

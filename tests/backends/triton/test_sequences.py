"""Sequences of different lengths in one call, padded and packed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import patternc
from patternc.backends.reference import ReferenceBackend
from tests.backends.triton.data_programs import PROGRAMS as DATA
from tests.backends.triton.programs import PROGRAMS, kernel_of, module_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning"),
]

LENGTHS = (33, 0, 7, 64)
LONGEST = 64
NAMES = ("window", "s2", "everything")
LISTED = ("listed", "mixed")
"""Programs with tile lists, and with an order of the tokens beside."""

CASES = [
    *(
        (name, backend)
        for name in NAMES
        for backend in ("reference", "tiled", "triton")
    ),
    *((name, "triton") for name in LISTED),
]


def tensors(name: str, batch: int, length: int) -> list[Tensor]:
    """Seeded normal q, k and v, D = 16 and D_v = 24."""
    generator = torch.Generator().manual_seed(3)
    attention = kernel_of(name).attention
    shapes = [
        (batch, attention.heads, length, 16),
        (batch, attention.kv_heads, length, 16),
        (batch, attention.kv_heads, length, 24),
    ]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def alone(name: str, own: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The definition for one sequence."""
    kernel = kernel_of(name)
    params = {item.name: item.default or 0 for item in kernel.attention.params}
    found = ReferenceBackend().load(kernel)(
        *own, scale=0.25, q_offset=0, params=params, return_lse=True
    )
    assert isinstance(found, tuple)
    return found


def load(name: str, backend: str, folder: Path) -> patternc.Attention:
    path = folder / f"{name}.pat"
    path.write_text({**PROGRAMS, **DATA}[name], encoding="utf-8")
    attention = patternc.load(path, backend=backend)
    return attention.schedule(block_q=32, block_k=32)


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_padded_sequences(name: str, backend: str, tmp_path: Path) -> None:
    """What stands in the padding, NaN, is never read into a row."""
    q, k, v = tensors(name, len(LENGTHS), LONGEST)
    for at, length in enumerate(LENGTHS):
        for tensor in (q, k, v):
            tensor[at, :, length:] = torch.nan
    attention = load(name, backend, tmp_path)
    lengths = torch.tensor(LENGTHS)
    output, lse = attention(q, k, v, lengths=lengths, return_lse=True)
    for at, length in enumerate(LENGTHS):
        own = [tensor[at : at + 1, :, :length] for tensor in (q, k, v)]
        wanted = alone(name, own)
        close(output[at : at + 1, :, :length], wanted[0])
        close(lse[at : at + 1, :, :length], wanted[1])
        assert bool((output[at, :, length:] == 0).all())
        assert bool((lse[at, :, length:] == -torch.inf).all())


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_packed_sequences(name: str, backend: str, tmp_path: Path) -> None:
    """Each is what it would be alone; NaN in one reaches no other."""
    starts = torch.tensor((0, *LENGTHS)).cumsum(0)
    total = int(starts[-1])
    q, k, v = tensors(name, 1, total + 5)  # 5 rows of no sequence
    v[:, :, 33] = torch.nan  # the first row of the third sequence
    attention = load(name, backend, tmp_path)
    output, lse = attention(
        q, k, v, cu_seqlens=starts, max_seqlen=LONGEST, return_lse=True
    )
    for start, length in zip(starts.tolist(), LENGTHS, strict=False):
        part = slice(start, start + length)
        wanted = alone(name, [tensor[:, :, part] for tensor in (q, k, v)])
        close(output[:, :, part], wanted[0])
        close(lse[:, :, part], wanted[1])
    assert bool((output[:, :, total:] == 0).all())
    assert bool((lse[:, :, total:] == -torch.inf).all())


@pytest.mark.parametrize(
    ("name", "backend"), [case for case in CASES if case[1] != "reference"]
)
@pytest.mark.parametrize("form", ["padded", "packed"])
def test_gradients_of_sequences(
    form: str, name: str, backend: str, tmp_path: Path
) -> None:
    """Each sequence has the gradients that it would have alone; nothing else has any.

    NaN stands where no sequence reads it: in the padding, or after the last sequence.
    """
    starts = torch.tensor((0, *LENGTHS)).cumsum(0)
    total = int(starts[-1])
    padded = form == "padded"
    shape = (len(LENGTHS), LONGEST) if padded else (1, total + 5)
    own = tensors(name, *shape)
    d_out = torch.randn(
        *own[0].shape[:3], 24, generator=torch.Generator().manual_seed(4)
    )
    d_lse = d_out[..., 0].clone()
    places = [
        (
            at if padded else 0,
            slice(0 if padded else start, (0 if padded else start) + n),
        )
        for at, (start, n) in enumerate(zip(starts.tolist(), LENGTHS, strict=False))
    ]
    outside = torch.ones(shape, dtype=torch.bool)
    for element, rows in places:
        outside[element, rows] = False
    for tensor in (*own, d_out):
        tensor.transpose(1, 2)[outside] = torch.nan
    given: dict[str, Any] = {"lengths": torch.tensor(LENGTHS)}
    if not padded:
        given = {"cu_seqlens": starts, "max_seqlen": LONGEST}
    leaves = [x.clone().requires_grad_() for x in own]
    output, lse = load(name, backend, tmp_path)(*leaves, return_lse=True, **given)
    found = torch.autograd.grad((output, lse), leaves, (d_out, d_lse))
    for gradient in found:
        assert bool((gradient.transpose(1, 2)[outside] == 0).all())
    for element, rows in places:
        alone_leaves = [
            x[element : element + 1, :, rows].clone().requires_grad_() for x in own
        ]
        results = alone(name, alone_leaves)
        starts_own = [x[element : element + 1, :, rows] for x in (d_out, d_lse)]
        wanted = torch.autograd.grad(results, alone_leaves, starts_own)
        for mine, true in zip(found, wanted, strict=True):
            close(mine[element : element + 1, :, rows], true)


def test_an_lse_alone_has_gradients(tmp_path: Path) -> None:
    leaves = [x.requires_grad_() for x in tensors("window", 2, 20)]
    given: dict[str, Any] = {"lengths": torch.tensor([20, 9]), "return_lse": True}
    grads = []
    for backend in ("triton", "tiled"):
        lse = load("window", backend, tmp_path)(*leaves, **given)[1]
        total = lse.masked_fill(lse == -torch.inf, 0).sum()
        grads.append(torch.autograd.grad(total, leaves[:2]))
    for mine, wanted in zip(*grads, strict=True):
        close(mine, wanted)


def test_sequences_with_outputs_have_no_gradients_in_triton(tmp_path: Path) -> None:
    path = tmp_path / "half.pat"
    text = "attention half {\n    heads 2\n    mask causal\n    output 0.5 * o + v\n}\n"
    path.write_text(text, encoding="utf-8")
    own = [torch.randn(1, 2, 20, 16, requires_grad=True) for _ in range(3)]
    attention = patternc.load(path, backend="triton")
    lengths = torch.tensor([7])
    with pytest.raises(ValueError, match="no gradient to be asked for, as the program"):
        attention(*own, lengths=lengths)
    with torch.no_grad():
        assert bool(attention(*own, lengths=lengths)[:, :, :7].isfinite().all())


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5, equal_nan=True)


def test_gradients_of_packed_sequences(tmp_path: Path) -> None:
    own = [x.double().requires_grad_() for x in tensors("window", 1, 30)]
    starts = torch.tensor([0, 11, 30])
    grads = []
    for backend in ("reference", "tiled"):
        output = load("window", backend, tmp_path)(
            *own, cu_seqlens=starts, max_seqlen=19
        )
        grads.append(torch.autograd.grad(output.square().sum(), own))
    for mine, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"lengths": [3]}, TypeError, "`lengths`: .*row of integers, got list"),
        ({"lengths": torch.ones(2)}, TypeError, "`lengths`: .*got torch.float32"),
        ({"lengths": torch.tensor([1])}, ValueError, r"`lengths`: .*\[2\], got \[1\]"),
        ({"max_seqlen": 3}, TypeError, "`cu_seqlens`: .*got nothing"),
        (
            {"cu_seqlens": torch.tensor([0, 3]), "max_seqlen": 3},
            ValueError,
            "`q`: .*if packed",
        ),
        (
            {"lengths": torch.tensor([1, 2]), "q_offset": 1},
            ValueError,
            "`q`: .*queries are their keys",
        ),
        (
            {"lengths": torch.tensor([1, 2]), "cu_seqlens": torch.tensor([0, 3])},
            TypeError,
            "got both",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    given: dict[str, object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    attention = load("window", "tiled", tmp_path)
    with pytest.raises(error, match=message):
        attention(*tensors("window", 2, 8), **given)  # type: ignore[call-overload]


def test_inputs_and_layouts_are_refused(tmp_path: Path) -> None:
    attention = load("alibi", "tiled", tmp_path)
    wide = [torch.randn(2, heads, 20, 16) for heads in (4, 2, 2)]
    heads = attention.kernel.attention
    wide = [wide[0][:, : heads.heads], *(x[:, : heads.kv_heads] for x in wide[1:])]
    with pytest.raises(ValueError, match="refused, as inputs and layouts"):
        attention(*wide, lengths=torch.tensor([3, 4]), slope=torch.ones(4))


@settings(max_examples=2, deadline=None)
@given(data=st.data())
def test_lists_of_any_lengths(data: st.DataObject) -> None:
    """Forward and backward, of packed sequences of which some are equally long."""
    name = data.draw(st.sampled_from(LISTED))
    lengths = data.draw(st.lists(st.sampled_from([0, 1, 33]), max_size=3))
    starts = torch.tensor([0, *lengths]).cumsum(0)
    longest = max([1, *lengths]) + data.draw(st.sampled_from([0, 40]))
    total = int(starts[-1]) + data.draw(st.integers(0, 3))
    leaves = [x.requires_grad_() for x in tensors(name, 1, max(total, 1))]
    ends = torch.cat([starts, starts[-1:]])
    given_: dict[str, Any] = {"cu_seqlens": ends, "max_seqlen": longest}
    with tempfile.TemporaryDirectory() as folder:
        attention = load(name, "triton", Path(folder))
    output, lse = attention(*leaves, return_lse=True, **given_)
    found = torch.autograd.grad(output.square().sum(), leaves)
    for start, length in zip(starts.tolist(), lengths, strict=False):
        part = slice(start, start + length)
        own = [x[:, :, part].detach().requires_grad_() for x in leaves]
        wanted, wanted_lse = alone(name, own)
        close(output[:, :, part], wanted)
        close(lse[:, :, part], wanted_lse)
        grads = torch.autograd.grad(wanted.square().sum(), own)
        for mine, true in zip(found, grads, strict=True):
            close(mine[:, :, part], true)
    for gradient in found:
        assert bool((gradient[:, :, int(starts[-1]) :] == 0).all())


def test_lists_are_kept_for_the_lengths_that_made_them(tmp_path: Path) -> None:
    module: Any = module_of("listed", tmp_path)
    module.SEQUENCE_LISTS.clear()
    own, numbers = tensors("listed", 1, 60), torch.tensor([0, 20, 60]).int()
    given_: dict[str, Any] = {"cu_seqlens": numbers, "max_seqlen": 64}
    first = module.forward(*own, **given_)
    assert len(module.SEQUENCE_LISTS) == 1
    close(module.forward(*own, **given_), first)
    assert len(module.SEQUENCE_LISTS) == 1
    numbers[1] = 50
    assert not torch.equal(module.forward(*own, **given_), first)
    assert len(module.SEQUENCE_LISTS) == 2
    close(module.forward(*own, **given_)[:, :, :20], first[:, :, :20])
    with pytest.raises(ValueError, match="lengths from 0 to 49 .*, got 50 from 0 on"):
        module.forward(*own, cu_seqlens=numbers, max_seqlen=49)
    with pytest.raises(ValueError, match="within 60 rows, got 61 from 0 on"):
        lengths = torch.tensor([61])
        module.forward(*own, lengths=lengths)

"""Sequences of different lengths in one call, padded and packed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import patternc
from patternc.backends.reference import ReferenceBackend
from tests.backends.triton.data_programs import PROGRAMS as DATA
from tests.backends.triton.programs import PROGRAMS, kernel_of, module_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning"),
]

LENGTHS = (50, 0, 7, 64, 33)
LONGEST = 64
NAMES = ("window", "s2", "everything")


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


@pytest.mark.parametrize("backend", ["reference", "tiled", "triton"])
@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("backend", ["reference", "tiled", "triton"])
@pytest.mark.parametrize("name", NAMES)
def test_packed_sequences(name: str, backend: str, tmp_path: Path) -> None:
    """Each is what it would be alone; NaN in one reaches no other."""
    starts = torch.tensor((0, *LENGTHS)).cumsum(0)
    total = int(starts[-1])
    q, k, v = tensors(name, 1, total + 5)  # 5 rows of no sequence
    v[:, :, 50] = torch.nan  # the first row of the third sequence
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


def test_lists_orders_and_inputs_are_refused(tmp_path: Path) -> None:
    for name, reason in (
        ("listed", "the tiles of this mask are listed"),
        ("mixed", "an order"),
    ):
        module = module_of(name, tmp_path)
        with pytest.raises(ValueError, match=f"refused, as {reason}"):
            module.forward(*tensors(name, 2, 20), lengths=torch.tensor([3, 4]))
    attention = load("alibi", "tiled", tmp_path)
    wide = [torch.randn(2, heads, 20, 16) for heads in (4, 2, 2)]
    heads = attention.kernel.attention
    wide = [wide[0][:, : heads.heads], *(x[:, : heads.kv_heads] for x in wide[1:])]
    with pytest.raises(ValueError, match="refused, as inputs and layouts"):
        attention(*wide, lengths=torch.tensor([3, 4]), slope=torch.ones(4))

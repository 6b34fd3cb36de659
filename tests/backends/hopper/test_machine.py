"""The kernel for Hopper on threads: several tiles a program, and all waits end."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from patternc.backends.hopper.route import walks
from patternc.backends.reference import ReferenceBackend
from patternc.backends.sequences import Form, Sequences
from tests.backends.hopper import machine
from tests.backends.hopper.machine import Pointer, Source, run
from tests.backends.hopper.programs import kernel_of, text_of

LENGTHS = [300, 0, 129, 170]
PADDED = Sequences(Form.PADDED, torch.tensor(LENGTHS, dtype=torch.int32), 300)
PACKED = Sequences(
    Form.PACKED, torch.tensor([0, 300, 300, 429, 590], dtype=torch.int32), 300
)


@dataclass(frozen=True, slots=True)
class Call:
    """A call: the sizes (n_q, n_k, q_offset), and the columns of keys and values."""

    sizes: tuple[int, int, int]
    batch: int = 1
    dim: int = 16
    value_dim: int = 16
    stages: int = 2
    sequences: Sequences | None = None

    def tensors(self, heads: int, kv_heads: int) -> list[Tensor]:
        """Seeded normal q, k and v."""
        n_q, n_k, _ = self.sizes
        draw = torch.Generator().manual_seed(n_q)
        shapes = [
            (self.batch, heads, n_q, self.dim),
            (self.batch, kv_heads, n_k, self.dim),
            (self.batch, kv_heads, n_k, self.value_dim),
        ]
        return [torch.randn(shape, generator=draw).bfloat16() for shape in shapes]


def bits_of(heads: int) -> int:
    """Of how many heads, 2 ** bits, the tiles go side by side."""
    return math.gcd(heads, 4).bit_length() - 1


def shared(heads: int, tiles: int, programs: int) -> tuple[int, int, int, int]:
    """Programs, and what the launcher says of their laps, as in `hopper_launch`."""
    bits = bits_of(heads)
    n_tiles, filled = heads * tiles, tiles << bits
    if programs >= n_tiles:
        return n_tiles, 1, filled, heads >> bits
    return (
        programs,
        n_tiles // programs,
        filled - filled % (2 * programs),
        heads >> bits,
    )


def found_by(
    name: str, call: Call, programs: int, text: str = ""
) -> tuple[Tensor, Tensor]:
    """Output and LSE as the kernel stores them, on at most so many programs."""
    attention = kernel_of(name).attention
    q, k, v = call.tensors(attention.heads, attention.kv_heads)
    out = torch.zeros(*q.shape[:3], call.value_dim, dtype=q.dtype)
    lse = torch.full(q.shape[:3], -math.inf)
    n_q, n_k, q_offset = call.sizes
    batch, longest, form, numbers = call.batch, n_q, "none", None
    if call.sequences is not None:
        form, longest = call.sequences.form.value, call.sequences.longest
        numbers = Pointer(call.sequences.numbers)
        count = len(call.sequences.numbers)
        batch = count - 1 if form == "packed" else count
    first = q_offset // 128
    tiles = (q_offset + longest - 1) // 128 - first + 1
    if form != "none" or not walks(kernel_of(name)):
        programs = 1 << 20
    programs, *shares = shared(attention.heads * batch, tiles, programs)
    sizes = (
        *shares,
        n_q,
        n_k,
        q_offset,
        first,
        tiles,
        bits_of(attention.heads * batch),
    )
    arguments = [
        *(Source(x, rows) for x, rows in ((q, 64), (k, 128), (v, 128), (out, 64))),
        *(Pointer(out), Pointer(lse), numbers),
        *(torch.tensor(x, dtype=torch.int32) for x in sizes),
        torch.tensor(math.log2(math.e) / math.sqrt(call.dim)),
        *(torch.tensor(x.default) for x in attention.params),
    ]
    constants = {
        "HEADS": attention.heads,
        "GROUP_SIZE": attention.heads // attention.kv_heads,
        "HEAD_DIM": call.dim,
        "VALUE_DIM": call.value_dim,
        "BLOCK_Q": 128,
        "BLOCK_K": 128,
        "STAGES": call.stages,
        "SEQUENCES": form,
    }
    run(text or text_of(name), arguments, constants, programs)
    return out, lse


def check(name: str, call: Call, programs: int, text: str = "") -> None:
    """Compare with the definition."""
    kernel = kernel_of(name)
    attention = kernel.attention
    tensors = call.tensors(attention.heads, attention.kv_heads)
    wanted = ReferenceBackend().load(kernel)(
        *(tensor.float() for tensor in tensors),
        scale=1 / math.sqrt(call.dim),
        q_offset=call.sizes[2],
        params={item.name: item.default or 0 for item in attention.params},
        return_lse=True,
        sequences=call.sequences,
    )
    found = found_by(name, call, programs, text)
    assert isinstance(wanted, tuple)
    torch.testing.assert_close(found[0].float(), wanted[0], atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(found[1], wanted[1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("programs", [1, 3, 1000])
@pytest.mark.parametrize("name", ["causal", "window"])
def test_tile_after_tile(name: str, programs: int) -> None:
    check(name, Call((600, 600, 0)), programs)


@pytest.mark.parametrize("name", ["everything", "blind", "duo"])
def test_programs(name: str) -> None:
    check(name, Call((200, 333, 133)), 3)


CALLS = {
    "before": Call((300, 300, -70), batch=2),
    "beyond": Call((270, 100, 500)),
    "turns": Call((300, 300, 0), dim=128, value_dim=128),
    "values": Call((300, 300, 0), dim=32, value_dim=16),
    "stages": Call((600, 600, 0), stages=4),
    "padded": Call((300, 300, 0), batch=4, sequences=PADDED),
    "packed": Call((600, 600, 0), sequences=PACKED),
}


@pytest.mark.parametrize("call", CALLS)
def test_calls(call: str) -> None:
    check("causal", CALLS[call], 3)


FAULTS = {
    "queries are loaded too early": (
        "mbarrier.wait(freed.index(2 * STAGES), (lap & 1) ^ 1)",
        "pass",
    ),
    "queries are awaited in the wrong phase": (
        "mbarrier.wait(filled.index(2 * STAGES), lap & 1)",
        "mbarrier.wait(filled.index(2 * STAGES), 0)",
    ),
    "values are never freed": (
        "mbarrier.arrive(freed.index(STAGES + stage))",
        "pass",
    ),
    "steps are counted anew": ("done += n_steps", "done += 0 * n_steps"),
    "a store is not awaited": (
        "tma.store_wait(0)  # what the buffer held before",
        "pass",
    ),
    "a turn is not passed": ("pass_turn(PART)\n    s = ", "pass\n    s = "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PATIENCE", 0.5)
    monkeypatch.setattr(machine, "PAUSE", 0.002)
    right, wrong = FAULTS[fault]
    text = text_of("causal")
    assert right in text
    with pytest.raises(AssertionError):
        for n_k in (600, 100):  # many steps a tile, and one
            call = Call((900, n_k, 0), dim=128, value_dim=128)
            check("causal", call, 2, text.replace(right, wrong))


@pytest.mark.parametrize("programs", [7, 78, 132])
@pytest.mark.parametrize(("heads", "n_q_tiles"), [(4, 5), (6, 40), (32, 17), (3, 100)])
def test_every_tile_once_and_even_shares(
    heads: int, n_q_tiles: int, programs: int
) -> None:
    """A causal query tile takes one step more than the one before."""
    names = machine.names_of(text_of("causal"))
    programs, *numbers = shared(heads, n_q_tiles, programs)
    laps, filled, sections = (torch.tensor(x, dtype=torch.int32) for x in numbers)
    bits = bits_of(heads)
    seen, shares = [], []
    for program in range(programs):
        machine.enter(machine.Block(program, programs))
        own = names["laps_of"](laps, sections, n_q_tiles, bits, "none")
        places = [
            names["place_of"](lap, filled, sections, 3, n_q_tiles, bits, heads)
            for lap in range(own)
        ]
        seen += [tuple(map(int, place)) for place in places]
        shares.append(sum(int(qt) - 2 for qt, _, _ in places))
    tiles = [(qt + 3, h, 0) for qt in range(n_q_tiles) for h in range(heads)]
    assert sorted(seen) == sorted(tiles)
    assert max(shares) <= 1.03 * _greedy(heads, n_q_tiles, len(shares)) + 1


def _greedy(heads: int, n_q_tiles: int, programs: int) -> int:
    """The most steps of a program where who is free takes the heaviest tile left."""
    shares = [0] * programs
    for steps in range(n_q_tiles, 0, -1):
        for _ in range(heads):
            heapq.heapreplace(shares, shares[0] + steps)
    return max(shares)

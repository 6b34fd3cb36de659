"""Choosing keys and attending to them, beside dense attention, on one CUDA device.

In: a standard file that selects, and a shape. Out: `Selected`: milliseconds of the plan
(estimate and selection), of attention with that plan, and of both in one call; density
and recall of what was chosen; the peers' dense causal attention on the same tensors.
Not its job: whether a choice is right (tests/stdlib/test_selectors.py), programs without
selections (`bench.measure`).

The tensors are those of `bench.structured`, so that there is something to find. What is
chosen is measured through the LSE, without a dense mask: queries of zeros give each
visible key the same weight, so that exp(LSE) counts them, and exp(LSE - dense LSE) is
the share of the softmax that is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from patternc import stdlib_patterns
from patternc.attention import Attention
from patternc.bench.clocks import VERY_LONG_MS, Clock, median_ms, replayed_ms
from patternc.bench.peers import Absent, Site
from patternc.bench.record import CUDNN, FA3, FLASH, Records, Selected, Shape, Timing
from patternc.bench.run import machine
from patternc.bench.structured import structured
from patternc.bench.suite import Sizes, row_named
from patternc.driver import trace_source
from patternc.plan.kernel import Schedule
from patternc.planned import Plan
from patternc.source import Source

LENGTHS = (32768, 131072, 524288, 1048576)
SHORT = (4096, 8192, 16384)
DENSE_PEERS = (FA3, FLASH, CUDNN)
CUDA = torch.device("cuda")

ROWS = 1024
"""The last queries, over which recall is measured."""

SEARCH_STEPS = 7
NAMED = 10
"""How many kernels of a call are listed."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A standard file with parameters, or a program's own text.

    `entry` is the attention in the file, if it has another name. With `density` its
    input `threshold` is searched for a share of the causal pairs; `longest` is the
    greatest length that its maps have room for.
    """

    name: str
    file: str
    values: Mapping[str, float] = field(default_factory=dict)
    density: float | None = None
    longest: int = 1 << 20
    text: str = ""
    entry: str = ""

    def attention(self, shape: Shape, schedule: Schedule | None = None) -> Attention:
        """The program for the heads of a shape."""
        text = self.text or stdlib_patterns.text(self.file)
        heads = {"count": shape.heads, "kv_count": shape.kv_heads}
        source = Source(f"{self.file}.pat", text)
        values = {**self.values, **heads}
        return Attention(
            trace_source(source, self.entry or self.file, values, schedule)
        )


def or_dense(file: str) -> str:
    """The text of a standard file whose masks may be dense where that is cheaper."""
    lines = stdlib_patterns.text(file).splitlines()
    ends = [place for place, line in enumerate(lines) if line.startswith("    mask ")]
    for place in ends:
        lines[place] += " else dense when cheaper"
    return "\n".join(lines) + "\n"


POOLED = """
attention top_p_blocks(block = 128, count = 32, kv_count = 8) {
    heads count kv kv_count
    input threshold[h] : float
    let coarse = softmax(
        mean(Q by q // block) @ mean(K by k // block) * scale
            where k // block <= q // block
    )
    let chosen = top_p(
        threshold[h],
        coarse per q // block,
        always k // block == 0 | k // block == q // block
    )
    mask causal & (q // block, k // block) in chosen
}
"""
"""What XAttention, SpargeAttn and FlexPrefill share, in its cheapest form."""

CHOICES = (
    Choice("vertical_slash", "vertical_slash"),
    Choice("vertical_slash_near", "vertical_slash", {"near": 5000}),
    Choice(
        "xattention_10",
        "xattention",
        {"stride": 16},
        density=0.1,
        longest=1 << 17,
        entry="xattention_by_head",
    ),
    Choice("top_p_10", "top_p_blocks", density=0.1, text=POOLED),
    Choice("block_topk", "block_topk", {"block": 128, "blocks": 100}),
)
"""As published, but for the second, whose diagonals are clustered beyond doubt, and
for wider strides and blocks where estimating would take more than it saves."""

OR_DENSE = (
    Choice(
        "vertical_slash_or_dense",
        "vertical_slash",
        text=or_dense("vertical_slash"),
    ),
    Choice(
        "xattention_or_dense", "xattention", {"stride": 16}, text=or_dense("xattention")
    ),
    Choice(
        "block_topk_or_dense",
        "block_topk",
        {"block": 128, "blocks": 16},
        text=or_dense("block_topk"),
    ),
)
"""What short calls are measured with: choosing seldom pays there."""


def choice_named(name: str) -> Choice:
    """Raises `ValueError` for an unknown name."""
    for choice in (*CHOICES, *OR_DENSE):
        if choice.name == name:
            return choice
    known = ", ".join(choice.name for choice in (*CHOICES, *OR_DENSE))
    raise ValueError(f"choices are {known}; got {name}")


def shape_at(length: int) -> Shape:
    """32 query heads and 8 key/value heads; fewer where dense attention takes seconds."""
    heads = 32 if length <= 131072 else 16 if length <= 524288 else 8
    return Shape(1, heads, heads // 4, length, 128)


def run_selecting(
    choices: Sequence[Choice],
    lengths: Sequence[int],
    keep: Callable[[Records], None],
    tell: Callable[[str], None],
) -> Records:
    """Every choice at every length that it has room for, on the current CUDA device.

    `keep` gets all that is there so far, `tell` hears of each measurement in one line.
    """
    found = Records(machine())
    for length in lengths:
        for choice in choices:
            if length <= choice.longest:
                clock = replayed_ms if length in SHORT else median_ms
                item = compare(choice, shape_at(length), clock=clock)
                found = replace(found, selected=(*found.selected, item))
                tell(line_of(item))
                keep(found)
    return found


def line_of(found: Selected) -> str:
    """A measurement in one line."""
    peers = ", ".join(
        f"{peer.system} {peer.note if peer.ms is None else f'{peer.ms:.3f}'}"
        for peer in found.peers
    )
    return (
        f"{found.choice} {found.shape.title}: density {found.density:.4f}, recall"
        f" {found.recall:.3f}, plan {found.plan_ms:.3f}, attend {found.attend_ms:.3f},"
        f" together {found.together_ms:.3f} ms{' (dense)' if found.is_dense else ''};"
        f" causal {found.dense_ms:.3f}, {peers}{found.note}"
    )


def compare(
    choice: Choice,
    shape: Shape,
    device: torch.device = CUDA,
    clock: Clock | None = None,
    schedule: Schedule | None = None,
    seed: int = 0,
) -> Selected:
    """Measure one choice, and dense attention on the same tensors.

    What a choice or a peer can't do is a note in the result.
    """
    clock = clock or median_ms
    dtype = getattr(torch, shape.dtype)
    heads = (shape.batch, shape.heads, shape.kv_heads)
    made = structured(*heads, shape.length, shape.head_dim, dtype, device, seed)
    q, k, v = made.q, made.k, made.v
    empty = Selected(choice.name, shape)
    with torch.no_grad():
        try:
            found = _ours(empty, choice, (q, k, v), clock, schedule)
        # One choice's failure is a finding, not the end of the run.
        except Exception as error:  # noqa: BLE001
            note = " ".join(f"{type(error).__name__}: {error}".split())
            found = replace(empty, note=f"; {note[:240]}")
        return replace(found, peers=_peers(shape, (q, k, v), clock))


def _ours(
    empty: Selected,
    choice: Choice,
    tensors: tuple[Tensor, Tensor, Tensor],
    clock: Clock,
    schedule: Schedule | None,
) -> Selected:
    q, k, v = tensors
    shape = empty.shape
    attention = choice.attention(shape, schedule)
    inputs: dict[str, Any] = {}
    if choice.density is not None:
        inputs.update(shares_for(attention, choice.density, q, k))
    plan = attention.plan(q, k, **inputs)

    def both() -> Tensor:
        found: Tensor = attention(q, k, v, **inputs)
        return found

    def attend() -> Tensor:
        found: Tensor = attention(q, k, v, plan=plan, **inputs)
        return found

    is_dense = attention.is_dense(shape.length, shape.length, 0, **inputs)
    same = torch.equal(both(), attend())  # what is timed below has run here
    note = "" if same else "; NOT the same with the plan and without"
    if is_dense:
        note = "; dense by the cost model: both is dense attention, and plans nothing"
    causal = _causal(shape)
    causal(q, k, v)  # its kernel may be another than that of a few rows, as recall has
    means = {name: float(value.mean()) for name, value in inputs.items()}
    return replace(
        empty,
        values=tuple(sorted({**choice.values, **means}.items())),
        density=density_of(attention, plan, q, k, v, inputs),
        recall=recall_of(attention, plan, q, k, v, inputs),
        plan_ms=clock(lambda: attention.plan(q, k, **inputs)),
        attend_ms=clock(attend),
        together_ms=clock(both),
        dense_ms=clock(lambda: causal(q, k, v)),
        is_dense=is_dense,
        kernels=kernels_of(both),
        note=note,
    )


def density_of(
    attention: Attention,
    plan: Plan,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inputs: Mapping[str, Any],
) -> float:
    """The share of visible pairs among all n x n, mean over batch and heads."""
    _, lse = attention(torch.zeros_like(q), k, v, plan=plan, return_lse=True, **inputs)
    return float(lse.double().exp().mean()) / k.shape[2]


def recall_of(
    attention: Attention,
    plan: Plan,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inputs: Mapping[str, Any],
) -> float:
    """The share of the causal softmax of the last queries that falls on visible keys."""
    _, kept = attention(q, k, v, plan=plan, return_lse=True, **inputs)
    dense = _causal(Shape(1, q.shape[1], k.shape[1], k.shape[2], q.shape[3]))
    rows = min(ROWS, q.shape[2])
    _, every = dense(q[:, :, -rows:].contiguous(), k, v, return_lse=True)
    return float((kept[:, :, -rows:] - every).double().exp().mean())


def _causal(shape: Shape) -> Attention:
    """Our own dense attention for the heads of a shape."""
    text = f"attention dense {{ heads {shape.heads} kv {shape.kv_heads} mask causal }}"
    return Attention(trace_source(Source("dense.pat", text)))


def shares_for(
    attention: Attention, density: float, q: Tensor, k: Tensor
) -> dict[str, Tensor]:
    """The input `threshold` [H] with which each head keeps about a share of the pairs.

    `density` is a share of the causal pairs. By bisection, for all heads at once; what
    a block of keys is worth is counted by blocks.
    """
    low = torch.zeros(q.shape[1], device=q.device)
    high = torch.ones_like(low)
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        table = attention.plan(q, k, threshold=middle).tables["chosen"]
        blocks = table.shape[-1]
        kept = table[..., -blocks:, :].sum((-1, -2)).float().mean(0)
        is_over = 2 * kept > density * blocks**2
        low, high = (
            torch.where(is_over, low, middle),
            torch.where(is_over, middle, high),
        )
    return {"threshold": (low + high) / 2}


def _peers(
    shape: Shape, tensors: tuple[Tensor, Tensor, Tensor], clock: Clock
) -> tuple[Timing, ...]:
    """All peers; where the first takes seconds the others, which take more, do not run."""
    first = _peer(DENSE_PEERS[0], shape, tensors, clock)
    if first.ms is None or first.ms < VERY_LONG_MS:
        rest = tuple(_peer(name, shape, tensors, clock) for name in DENSE_PEERS[1:])
    else:
        note = f"not run, as {first.system} takes {first.ms / 1e3:.1f} s"
        rest = tuple(Timing(name, None, note=note) for name in DENSE_PEERS[1:])
    return (first, *rest)


def _peer(
    system: str, shape: Shape, tensors: tuple[Tensor, Tensor, Tensor], clock: Clock
) -> Timing:
    """Dense causal attention by one of the peers."""
    sizes = Sizes(shape.heads, shape.kv_heads, shape.length)
    q, k, v = tensors
    try:
        attend = Site.of(row_named("causal"), sizes, q.device).prepare(system)
        attend(q, k, v)
        return Timing(system, clock(lambda: attend(q, k, v)))
    except Absent as reason:
        return Timing(system, None, note=str(reason))
    # As above: one system's failure is a finding.
    except Exception as error:  # noqa: BLE001
        note = " ".join(f"{type(error).__name__}: {error}".split())
        return Timing(system, None, note=note[:240])


def kernels_of(run: Callable[[], object]) -> tuple[tuple[str, float], ...]:
    """The device milliseconds of the kernels of a call, by name, the dearest first."""
    if not torch.cuda.is_available():
        return ()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as log:
        run()
        torch.cuda.synchronize()
    found: dict[str, Any] = {
        item.key.split("(")[0][:60]: item.self_device_time_total / 1e3
        for item in log.key_averages()
        if item.self_device_time_total > 0
    }
    return tuple(sorted(found.items(), key=lambda item: -item[1])[:NAMED])

"""Packages for tests, with and without compiling.

In: a program's text and what to build it for. Out: a package's bytes, and a driver that
notes what is launched. Not its job: machine code; a fake stands for it, so that all else
can be tested in no time. `test_build` compiles for real.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from unittest.mock import patch

from patternc import driver, stdlib_patterns
from patternc.backends.triton import build
from patternc.backends.triton.build import Wanted, build_package
from patternc.backends.triton.machine_code import Compiled, Job, arguments_of
from patternc.plan.kernel import Kernel
from patternc.runtime.manifest import Tile, Usage
from patternc.runtime.package import Package, package_of
from patternc.source import Source

PROGRAMS = {
    "causal": "attention causal_gqa { heads 4 kv 2 mask causal }",
    "window": "attention windowed(w: runtime = 20) { heads 2 mask window(w) }",
    "duo": """attention duo {
        heads 4 kv 2
        mask causal           for g in {0}
        mask streaming(4, 40) otherwise
    }""",
    "by_head": """attention by_head {
        heads 4 kv 2
        mask  causal & (window(2) | (k + h + 1) % 3 == 0)[q // 64, k // 64]
    }""",
    "full": "attention everything { heads 2 mask full }",
    "softcap": "attention capped { heads 2 mask causal score softcap(s, 30.0) }",
    "ordered": """layout clip = text[5] + video[f = 4, y = 5, x = 6]
    attention near {
        heads 4 kv 2
        layout clip
        mask q in text | k in text
            | abs(q.f - k.f) <= 1 & abs(q.y - k.y) <= 1 & abs(q.x - k.x) <= 2
        order video by tile(f = 2, y = 3, x = 3)
    }""",
    "layout": """layout clip = text[37] + video[f = 6, y = 40]
    attention plain_layout {
        heads 2
        layout clip
        mask q in text | k in text | abs(q.f - k.f) <= 1
    }""",
}

DATA = {
    "vertical_slash": """attention vertical_slash(n: runtime = 9) {
        heads 4 kv 2
        let probe = softmax(scores where causal for q >= max(N - 16, 0))
        let columns = top(min(n, N), sum(probe by k), always k < 3)
        let diagonals = top(min(12, N), sum(probe by q - k), always q - k < 4)
        mask causal & (k in columns | q - k in diagonals)
    }""",
    "pooled": """attention pooled {
        heads 4 kv 2
        let coarse = softmax(mean(Q by q // 64) @ max(K by k // 64) * scale
                             where (causal)[q // 64, k // 64])
        let best = top(2, coarse per q // 64, always k // 64 == 0)
        mask causal & (q // 64, k // 64) in best
    }""",
    "shares": """attention shares {
        heads 4 kv 2
        let pairs = sum(scores where (q + k) % 8 == 7 by q // 8, k // 8) / 8
        let parts = softmax(pairs where k // 8 <= q // 8)
        let best = top_p(
            0.8, sum(parts by q // 64, k // 64) per q // 64, always k // 64 == 0
        )
        mask causal & (q // 64, k // 64) in best
    }""",
    "largest": """attention largest(n: runtime = 9) {
        heads 4 kv 2
        let highest = max(scores where causal by k)
        let some = top(n, highest)
        let others = above(0.5, highest)
        mask causal & (k in some | k in others)
    }""",
    "slopes": """attention slopes(w: runtime = 300) {
        heads 4 kv 2
        input slope[h] : float
        input bias[b, k] : float
        mask window(w)
        score s + slope[h] * (k - q) + bias[k]
    }""",
    "documents": """attention documents(w: runtime = 20) {
        heads 4 kv 2
        input doc[b, k] : int
        input keep[h, q // 8, k // 16] : bool
        input shift[h] : int
        mask causal & doc[q] == doc[k]                                      for h in {0, 1}
        mask (causal | abs(q - k) < shift[h] + w) & keep[h, q // 8, k // 16] otherwise
    }""",
    "packed_documents": """attention packed_documents {
        heads 4 kv 2
        input doc[b, k] : int
        mask causal & doc[q] == doc[k]
    }""",
    "given": """attention given {
        heads 2
        input columns[h, k] : bool
        input diagonals[b, h, 400] : bool
        input far[h] : int
        mask causal & (columns[h, k] | diagonals[h, q - k] | q - k < far[h])
    }""",
    "blocks": """attention blocks {
        heads 4 kv 2
        input keep[b, h, q // 64, k // 64] : bool
        mask causal & keep[h, q // 64, k // 64]
    }""",
    "sinks": """attention sinks(w: runtime = 30) {
        heads 4 kv 2
        input logit[h] : float
        input kind[h] : int
        input open[b, q // 8] : bool
        mask causal
        sink logit[h]                                                 for h in {0}
        sink where(h < w, w / 9.0, -exp(logit[(kind[h] + w) % 4]))    for h in {1, 3}
        output where(q % 3 < h & open[q // 8], abs(o), sqrt(w + q) * o)  for h in {2}
    }""",
    "gated": """attention gated {
        heads 4 kv 2
        input gate[b, q, h] : float
        input slope[h] : float
        mask window(40)
        score s + slope[h] * (k - q)
        sink min(slope[h], 0.25) / 2       for h in {0, 1}
        output o * sigmoid(gate[q, h])     for h in {0, 2}
        output 0.6 * o + relu(slope[h]) * v  for h in {1}
    }""",
    "chosen_sinks": """attention chosen_sinks(n: runtime = 9) {
        heads 4 kv 2
        let columns = top(n, mean(scores where causal by k))
        mask causal & (k in columns | q - k < 3)
        sink 0.5
        output o * log(N + 0.5)            for h in {0, 3}
    }""",
    "per_token": """attention per_token {
        heads 4 kv 2
        let bound = relu(Q) @ max(K by k // 8) - relu(-Q) @ min(K by k // 8)
        let chosen = top(
            min(2, (N + 7) // 8),
            bound where k // 8 <= q // 8 per q,
            always k // 8 == q // 8
        )
        mask causal & (q, k // 8) in chosen
    }""",
    "groups": """attention groups {
        heads 4 kv 2
        let shares = softmax(Q @ mean(K by k // 8) * scale where k // 8 * 8 + 7 <= q)
        let others = shares where k // 8 >= 1 & q // 8 - k // 8 >= 2
        let chosen = top(min(2, (N + 7) // 8), others per q over g)
        mask causal & ((q, k // 8) in chosen | k // 8 < 1 | q // 8 - k // 8 < 2)
    }""",
    "small_blocks": """attention small_blocks(n: runtime = 2) {
        heads 4 kv 2
        let coarse = softmax(mean(Q by q // 16) @ mean(K by k // 16) * scale
                             where k // 16 <= q // 16)
        let best = top(n, coarse per q // 16, always k // 16 == 0)
        let slashes = top(40, sum(scores where causal by q - k))
        mask causal & ((q // 16, k // 16) in best | q % 5 == k % 5)     for h in {0, 1}
        mask causal & (
            ~((q // 16, k // 16) in best) & ~(q - k in slashes) | q - k < 4
        )                                                               otherwise
    }""",
    "pairs": """def y(t) = t // 8
    def x(t) = t % 8
    attention pairs(w: runtime = 7) {
        heads 4 kv 2
        input bias[h, q, k] : float
        input far[8, 80] : float
        input rel[h, 19, 15] : float
        input place[b, k] : int
        mask causal                 for h in {0, 1, 2}
        mask window(20) | k < 7     otherwise
        score softcap(s, 4.0) * bias[h, q, k]                              for h in {0, 2}
        score s + far[h, q - k] - far[h, w] * (q - k) + far[4, q // 16 - k // 32]
                                                                           for h in {1}
        score s + rel[h, y(q) - y(k) + 9, x(q) - x(k) + 7] + far[place[q] - place[k], w]
                                                                           for h in {3}
    }""",
    "ordered_pairs": """layout clip = text[5] + video[f = 3, y = 4, x = 5]
    attention ordered_pairs {
        heads 4 kv 2
        layout clip
        input near[h, 130] : float
        input rel[130] : float
        mask q in text | k in text
            | abs(q.f - k.f) <= 1 & abs(q.y - k.y) <= 1 & abs(q.x - k.x) <= 2
        order video by tile(f = 1, y = 2, x = 5)
        score s + near[h, q - k + 65]      for h in {0, 2}
        score s * rel[q - k + 65]          otherwise
    }""",
}
"""Programs that read inputs, choose keys, or finish rows."""


def or_dense(text: str) -> str:
    """A program whose mask may be dense where that is cheaper."""
    return re.sub(
        r"^( +mask .*)$", r"\1 else dense when cheaper", text, flags=re.MULTILINE
    )


CHEAPER = {
    "slashes_or_dense": or_dense(stdlib_patterns.text("vertical_slash")),
    "blocks_or_dense": or_dense(stdlib_patterns.text("block_topk")),
    "shares_or_dense": or_dense(DATA["shares"]),
    "some_heads": """attention some_heads(n: runtime = 9, w: runtime = 900) {
        heads 8 kv 4
        input gate[h] : float
        let best = top(min(n, N), mean(scores for q >= N - 64 by k), always k < 2)
        let least = above(0.5, max(scores where causal & k % 3 == 0 by q - k))
        mask causal & (k in best | q - k < w)         else dense when cheaper for h < 3
        mask causal & (q - k in least | k in best)    else dense when cheaper otherwise
        sink gate[h]
    }""",
}
"""Programs that choose unless a dense mask is cheaper."""

EVERYTHING = Wanted(
    ("sm_80", "sm_90"),
    ("fp16", "fp32"),
    (64, 40),
    backward=True,
    forms=("padded", "packed"),
)

TRAINED = Wanted(("sm_90",), ("fp16",), (64,), backward=True)
FORWARD = Wanted(("sm_90",), ("fp16",), (64,))


def fake_compile(path: Path, job: Job, cache: Path) -> Compiled:
    """What a compiler would give, but for the code."""
    maps = []
    for _, word in job.types:
        if word.startswith("tensordesc"):
            block = [
                int(x) for x in re.findall(r"\d+", word.split("[")[1].split("]")[0])
            ]
            kind = {"bf16": 10, "fp16": 6, "fp32": 7}[word[11:15]]
            maps.append({"block_size": block, "swizzle": 3, "elem_type": kind})
    known = [{**x, "fp4_padded": False} for x in maps]
    code = hashlib.sha256(repr(job).encode()).digest()
    keeps = job.target == "sm_80"
    return Compiled(
        code,
        b"// PTX " + code if keeps else None,
        job.kernel,
        arguments_of(job, known),
        job.warps or 4,
        32 * (job.warps or 4),
        job.stages or 3,
        1024,
        Usage(64, 0, (), {"wide": 1}),
    )


@lru_cache
def trace_of(name: str) -> driver.Trace:
    """A compiled program."""
    text = {**PROGRAMS, **DATA, **CHEAPER}[name]
    return driver.trace_source(Source(f"{name}.pat", text))


@lru_cache
def dense_of(name: str) -> driver.Trace | None:
    """What is computed instead where that is cheaper."""
    return driver.dense_trace(trace_of(name))


def kernel_of(name: str) -> Kernel:
    """A planned program."""
    return trace_of(name).kernel


@lru_cache
def quick_bytes(name: str, wanted: Wanted = EVERYTHING) -> bytes:
    """A package whose code is none."""
    with patch.object(build, "compile_job", fake_compile):
        other = dense_of(name)
        dense = None if other is None else other.kernel
        return build_package(kernel_of(name), wanted, processes=0, dense=dense)


def quick_package(name: str, wanted: Wanted = EVERYTHING) -> Package:
    """The same, read."""
    return package_of(quick_bytes(name, wanted))


@dataclass(slots=True)
class Noted:
    """One launch that a driver was asked for."""

    code: bytes
    entry: str
    grid: tuple[int, ...]
    threads: int
    shared: int
    stream: int
    parameters: int


@dataclass(slots=True)
class StubDriver:
    """A driver without a GPU: notes everything, and knows of one device."""

    target: str = "sm_90"
    shared: int = 232_448
    launches: list[Noted] = field(default_factory=list)
    loaded: list[bytes] = field(default_factory=list)
    _functions: list[tuple[bytes, str]] = field(default_factory=list)

    def device(self) -> int:
        return 0

    def stream(self, device: int) -> int:
        return 77

    def architecture(self, device: int) -> str:
        return self.target

    def most_shared(self, device: int) -> int:
        return self.shared

    def load(self, code: bytes) -> int:
        self.loaded.append(code)
        return len(self.loaded) - 1

    def function(self, module: int, name: str, shared: int) -> int:
        self._functions.append((self.loaded[module], name))
        return len(self._functions) - 1

    def launch(
        self,
        function: int,
        grid: tuple[int, ...],
        threads: int,
        shared: int,
        stream: int,
        parameters: int,
    ) -> None:
        found = self._functions[function]
        self.launches.append(Noted(*found, grid, threads, shared, stream, parameters))

    def encode(
        self,
        tile: Tile,
        element_size: int,
        address: int,
        shape: Sequence[int],
        strides: Sequence[int],
    ) -> bytes:
        told = repr((tile, element_size, address, tuple(shape), tuple(strides)))
        return hashlib.sha512(told.encode()).digest() * 2

"""What the suite measured, as data that survives the run.

In: times. Out: frozen records, to JSON and back, so that parts measured apart make one
report. Not its job: measuring (`bench.measure`), Markdown (`bench.report`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

OURS = "patternc"
FLEX = "FlexAttention"
FLASH = "SDPA flash"
CUDNN = "SDPA cuDNN"
FA3 = "FA3"
PEERS = (FLEX, FLASH, CUDNN, FA3)

FORWARD = "forward"
BACKWARD = "backward"


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a call; every tensor is [batch, heads, length, head_dim]."""

    batch: int
    heads: int
    kv_heads: int
    length: int
    head_dim: int
    dtype: str = "bfloat16"

    @property
    def title(self) -> str:
        """The shape in one line."""
        return (
            f"B{self.batch} H{self.heads} kv {self.kv_heads} D{self.head_dim} "
            f"N{self.length} {self.dtype}"
        )


@dataclass(frozen=True, slots=True)
class Timing:
    """One system on one row: median milliseconds, or why there is none.

    `distance` is ||peer - ours|| / ||ours||, of the output or of all three gradients,
    None where one of them is missing. `ready_ms` is the time before the first result,
    compilation included.
    """

    system: str
    ms: float | None
    distance: float | None = None
    ready_ms: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """All systems on one row at one shape, forward or backward.

    `part` is the part of the suite that measured it. `density` is the share of visible
    pairs, `tile_density` that of the pairs in tiles that are visited.
    """

    part: str
    row: str
    direction: str
    shape: Shape
    block_q: int
    block_k: int
    density: float
    tile_density: float
    timings: tuple[Timing, ...]

    def of(self, system: str) -> Timing | None:
        """The timing of one system."""
        return next((item for item in self.timings if item.system == system), None)

    def ms(self, system: str) -> float | None:
        """The milliseconds of one system, None if it was not timed."""
        timing = self.of(system)
        return None if timing is None else timing.ms

    def ratio(self, system: str) -> float | None:
        """A peer's time over ours."""
        ours, peer = self.ms(OURS), self.ms(system)
        return peer / ours if ours and peer else None

    def rate(self, share: float) -> float | None:
        """TFLOP/s on a share of all pairs: 4 * D for each, backward 10 * D."""
        ours, shape = self.ms(OURS), self.shape
        if not ours:
            return None
        products = 10 if self.direction == BACKWARD else 4
        pairs = share * shape.length**2 * shape.heads * shape.batch
        return products * shape.head_dim * pairs / ours / 1e9


@dataclass(frozen=True, slots=True)
class Ready:
    """What comes before a kernel of ours, and before FlexAttention's.

    Cold and warm seconds from source text to the first result in a process of its own;
    `launches` and `bytes` of a call beside its kernel and its results; what a call
    takes (`call_ms`) and its kernel alone (`kernel_ms`); making FlexAttention's block
    mask, milliseconds and bytes at the peak.
    """

    row: str
    shape: Shape
    cold_s: float | None = None
    warm_s: float | None = None
    launches: int | None = None
    bytes: int | None = None
    call_ms: float | None = None
    kernel_ms: float | None = None
    mask_ms: float | None = None
    mask_bytes: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Selected:
    """A choice of keys at run time and attention to them, beside dense attention.

    `choice` names the program, `values` are those of its parameters. `density` is the
    share of visible pairs among all n x n, `recall` that of the causal softmax that
    they keep. Milliseconds of the plan, of attention with that plan, of one call that
    does both, of our own causal attention; `kernels` are those of such a call; `peers`
    compute causal attention. `is_dense`: a call without a plan chooses nothing.
    """

    choice: str
    shape: Shape
    values: tuple[tuple[str, float], ...] = ()
    density: float = 0.0
    recall: float = 0.0
    plan_ms: float = 0.0
    attend_ms: float = 0.0
    together_ms: float = 0.0
    kernels: tuple[tuple[str, float], ...] = ()
    peers: tuple[Timing, ...] = ()
    note: str = ""
    dense_ms: float = 0.0
    is_dense: bool = False

    def ratio(self, system: str) -> float | None:
        """A peer's dense time over our choice and attention together."""
        peer = next((item for item in self.peers if item.system == system), None)
        if peer is None or peer.ms is None or not self.together_ms:
            return None
        return peer.ms / self.together_ms


@dataclass(frozen=True, slots=True)
class Records:
    """Everything measured on one machine."""

    machine: str
    results: tuple[Result, ...] = ()
    ready: tuple[Ready, ...] = ()
    selected: tuple[Selected, ...] = ()


def merge(parts: Iterable[Records]) -> Records:
    """Records measured apart; a later measurement replaces an earlier one.

    Raises `ValueError` if the machines differ: ratios of two machines mean nothing.
    """
    found = list(parts)
    machines = sorted({part.machine for part in found})
    if len(machines) != 1:
        raise ValueError(f"expected records of one machine, got {machines}")
    results = {
        (r.part, r.row, r.direction, r.shape): r for part in found for r in part.results
    }
    ready = {(r.row, r.shape): r for part in found for r in part.ready}
    chosen = {(r.choice, r.shape): r for part in found for r in part.selected}
    return Records(
        machines[0],
        tuple(results.values()),
        tuple(ready.values()),
        tuple(chosen.values()),
    )


def to_json(records: Records) -> str:
    """Readable JSON, ending in a newline."""
    return json.dumps(asdict(records), indent=1) + "\n"


def from_json(text: str) -> Records:
    """The records in `to_json`'s text. Raises `ValueError` for anything else."""
    try:
        held = json.loads(text)
        results = tuple(_result(item) for item in held["results"])
        ready = tuple(
            Ready(**{**item, "shape": Shape(**item["shape"])}) for item in held["ready"]
        )
        # Records from before there were selections have none.
        selected = tuple(_selected(item) for item in held.get("selected", ()))
        return Records(str(held["machine"]), results, ready, selected)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"not the suite's records: {error}") from None


def read_all(paths: Sequence[Path]) -> Records:
    """The records of several files, merged. Raises `OSError` and `ValueError`."""
    return merge(from_json(path.read_text()) for path in paths)


def _selected(item: dict[str, Any]) -> Selected:
    made = {
        "shape": Shape(**item["shape"]),
        "peers": tuple(Timing(**timing) for timing in item["peers"]),
        "values": tuple((str(name), value) for name, value in item["values"]),
        "kernels": tuple((str(name), float(ms)) for name, ms in item["kernels"]),
    }
    return Selected(**{**item, **made})


def _result(item: dict[str, object]) -> Result:
    fields = dict(item)
    shape, timings = fields.pop("shape"), fields.pop("timings")
    if not isinstance(shape, dict) or not isinstance(timings, list):
        raise TypeError("a result has a shape and timings")
    made = tuple(Timing(**timing) for timing in timings)
    return Result(shape=Shape(**shape), timings=made, **fields)  # type: ignore[arg-type]

"""The performance report, `docs/performance.md`.

In: records of the suite. Out: Markdown. Not its job: measuring (`bench.measure`), what
is promised (`bench.acceptance`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from patternc.bench.acceptance import (
    Check,
    check,
    geometric_mean,
    head_dims,
    table,
    tile_cost,
)
from patternc.bench.record import (
    BACKWARD,
    FORWARD,
    OURS,
    PEERS,
    Ready,
    Records,
    Result,
    Selected,
)

_INTRODUCTION = """# Performance

Written by `patternc bench --suite --out docs/performance.md`: run it again on any CUDA
device. All systems of a row run in one process on the same tensors; times are medians of
`triton.testing.do_bench`. A ratio is the peer's time over ours: above 1 we are faster.
TFLOP/s count 4 * D operations (backward: 10 * D) for each pair in a *live tile*, one
that is visited; *visible* counts only the pairs that the mask shows. *Distance* is the
greatest ||peer - ours|| / ||ours|| among the peers, of the output or of a gradient: that
the same function was timed. FlexAttention is compiled, with default options, on the
block mask that `create_block_mask` makes and in the caller's order of tokens. SDPA and
FA3 (`fa3_fwd`, forward only) compute dense and causal attention; all else would need an
n_q x n_k mask. A backward pass is dq, dk and dv of one forward pass that ran before.
"""

MARKS = {True: "yes", False: "NO", None: "?"}


def report(records: Records) -> str:
    """The whole page, ending in a newline."""
    sections = [_INTRODUCTION, f"Device: {records.machine}.\n"]
    checks = check(records)
    if checks:
        sections.append(_acceptance(checks))
    for direction in (FORWARD, BACKWARD):
        for head_dim in head_dims(records):
            rows = table(records, direction, head_dim)
            if rows:
                title = f"{direction.capitalize()}, D{head_dim}"
                sections.append(_section(title, rows, _means(rows)))
    for part, title in (("grouped", "Grouped heads"), ("short", "Short sequences")):
        rows = tuple(r for r in records.results if r.part == part)
        if rows:
            sections.append(_section(title, rows, ""))
    long = [result for result in records.results if result.part == "long"]
    if long:
        sections.append(_long(long))
    if records.ready:
        sections.append(_ready(records.ready))
    if records.selected:
        sections.append(_selected(records.selected))
    return "\n".join(sections)


def _acceptance(checks: Sequence[Check]) -> str:
    lines = [[item.promise, MARKS[item.holds], item.figure] for item in checks]
    head = ["against FlexAttention, unless said otherwise", "holds", "figure"]
    return _titled("What is promised", _grid(head, lines))


def _section(title: str, rows: Sequence[Result], last: str) -> str:
    head = ["pattern", "density", "tiles", "tile", "ms", "TFLOP/s", "visible"]
    head += [word for peer in PEERS for word in (f"{peer} ms", "ratio")]
    grid = _grid([*head, "distance"], [_line(row) for row in rows])
    shapes = sorted({row.shape.title for row in rows})
    about = [f"{shapes[0]}.", ""] if len(shapes) == 1 else []
    return _titled(title, [*about, *grid, "", *([last, ""] if last else [])], rows)


def _line(result: Result) -> list[str]:
    many = result.part in ("grouped", "short")
    name = f"{result.row}, {result.direction}, N{result.shape.length}"
    cells = [
        name if many else result.row,
        f"{result.density:.2%}",
        f"{result.tile_density:.2%}",
        f"{result.block_q}x{result.block_k}",
        _number(result.ms(OURS), 3),
        _number(result.rate(result.tile_density), 0),
        _number(result.rate(result.density), 0),
    ]
    for peer in PEERS:
        cells += [_number(result.ms(peer), 3), _number(result.ratio(peer), 2)]
    known = [t.distance for t in result.timings if t.distance is not None]
    return [*cells, f"{max(known):.1e}" if known else "-"]


def _means(rows: Sequence[Result]) -> str:
    found = []
    for peer in PEERS:
        ratios = [ratio for row in rows if (ratio := row.ratio(peer)) is not None]
        mean = geometric_mean(ratios)
        if mean is not None:
            found.append(f"{peer} {mean:.2f} over {len(ratios)} rows")
    return f"Geometric means: {'; '.join(found)}." if found else "No peer was timed."


def _long(rows: Sequence[Result]) -> str:
    lines = [
        [
            row.shape.title,
            f"{row.tile_density:.4%}",
            _number(row.ms(OURS), 3),
            _number(row.rate(row.tile_density), 0),
            _number(tile_cost(row), 4),
        ]
        for row in rows
    ]
    head = ["window_1024", "tiles", "ms", "TFLOP/s", "ps for a pair in a live tile"]
    return _titled("From 1K to 1M tokens", [*_grid(head, lines), ""], rows)


def _ready(rows: Sequence[Ready]) -> str:
    lines = [
        [
            row.row,
            _number(row.cold_s, 2),
            _number(row.warm_s, 2),
            _number(row.launches, 0),
            _number(row.bytes, 0),
            _number(row.call_ms, 3),
            _number(row.kernel_ms, 3),
            _number(row.mask_ms, 2),
            _number(None if row.mask_bytes is None else row.mask_bytes / 2**20, 0),
        ]
        for row in rows
    ]
    head = ["pattern", "cold s", "warm s", "launches", "bytes", "call ms", "kernel ms"]
    head += ["Flex mask ms", "Flex mask MiB"]
    about = (
        "Seconds from source text to the first result, in a process where torch is up, "
        "with empty caches and with full ones; launches and bytes of a later call "
        "beside its kernel and its results; that call, and its kernel alone; making "
        "FlexAttention's block mask again, uncompiled, and its memory at the peak."
    )
    notes = [f"- {row.row}: {row.note}" for row in rows if row.note]
    return _titled("Getting ready to run", [about, "", *_grid(head, lines), "", *notes])


def _selected(rows: Sequence[Selected]) -> str:
    lines = []
    for row in rows:
        cells = [
            row.choice,
            row.shape.title,
            f"{row.density:.2%}",
            f"{row.recall:.1%}",
            *(_number(x, 3) for x in (row.plan_ms, row.attend_ms)),
            _number(row.together_ms, 3) + (" (dense)" if row.is_dense else ""),
            _number(row.dense_ms or None, 3),
        ]
        for timing in row.peers:
            cells += [_number(timing.ms, 3), _number(row.ratio(timing.system), 2)]
        lines.append(cells)
    head = ["choice", "shape", "density", "recall", "plan ms", "attend ms", "both ms"]
    head.append("our causal ms")
    for timing in rows[0].peers:
        head += [f"{timing.system} ms", "ratio"]
    about = (
        "Keys chosen from the data (standard patterns), on tensors whose attention has "
        "sinks, a local part, columns and diagonals (`patternc/bench/structured.py`). "
        "Density is the share of all n x n pairs, recall the share of the causal softmax "
        "of the last queries on visible keys. The plan is estimate and selection; "
        "peers compute dense causal attention; ratios are their time over both of ours. "
        "(dense): the call chose nothing, as the program allows it. Up to 16384 tokens "
        "all calls are replayed as CUDA graphs: the host's time is left out."
    )
    notes = [f"- {row.choice}: {row.note}" for row in rows if row.note]
    for row in rows:
        dear = ", ".join(f"{name} {ms:.3f}" for name, ms in row.kernels)
        if dear:
            notes.append(f"- {row.choice} N{row.shape.length}, kernels in ms: {dear}")
    title = "Selection at run time"
    return _titled(title, [about, "", *_grid(head, lines), "", *notes])


def _titled(title: str, lines: Iterable[str], rows: Sequence[Result] = ()) -> str:
    """A section; beneath it why a system has no time, rows of one reason together."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for timing in row.timings:
            if timing.note:
                names = reasons.setdefault(f"{timing.system}: {timing.note}", [])
                names.append(row.row)
    notes = [
        f"- {reason} ({', '.join(dict.fromkeys(names))})"
        for reason, names in reasons.items()
    ]
    return "\n".join([f"## {title}", "", *lines, *notes, ""])


def _grid(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    rows = [f"| {' | '.join(cells)} |" for cells in (head, *lines)]
    return [rows[0], "|---" * len(head) + "|", *rows[1:]]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"

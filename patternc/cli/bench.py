"""`patternc bench`: how long the compiler takes, or the kernels that it makes.

In: programs. Out: with --compile the median milliseconds of each stage from the text
to the Triton source, for every attention; otherwise the median milliseconds of a
forward pass at each length, beside dense causal attention. `--suite` takes no programs:
it measures the performance suite beside its peers on a CUDA device and writes the
report. `--select` does the same for choices of keys at run time, and tells the line of
times that decides where a dense mask is cheaper. `--tune` measures
candidates for the table that schedules are chosen from. `--tiled` times the tiled
backend beside its peers on the CPU. Not its job: correctness (`patternc verify`).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from patternc import driver, passes
from patternc.analysis.prove import decide_all
from patternc.attention import Attention
from patternc.backends.triton.emit import emit
from patternc.check import lower
from patternc.cli.entries import chosen
from patternc.cli.files import write_whole
from patternc.cli.options import add_entry, add_program, length, values_of
from patternc.cli.report import UsageError
from patternc.plan.kernel import Schedule
from patternc.plan.tiling import plan
from patternc.progress import progress
from patternc.settings import from_environment
from patternc.source import Source
from patternc.syntax.load import read_source
from patternc.syntax.parse import parse
from patternc.timing import Milliseconds, Setting, time_forward

if TYPE_CHECKING:
    from patternc.bench.record import Selected

Result = TypeVar("Result")
Values = Mapping[str, int | float]

STAGES = ("parse", "lower", "passes", "asserts", "plan", "emit")
LENGTHS = (1024, 4096)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE... or --suite, --compile, --repeat, --entry, --set, what to run with."""
    add_program(parser, several=True, needed=False)
    _add_suite(parser)
    parser.add_argument(
        "--tiled", action="store_true", help="the tiled backend beside its peers"
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="measure tiles, warps and stages for programs, on a CUDA device",
    )
    add_entry(parser)
    parser.add_argument(
        "--compile", action="store_true", help="time the compiler and run no kernel"
    )
    parser.add_argument(
        "--repeat", type=length, default=5, metavar="R", help="runs (default: 5)"
    )
    parser.add_argument("--backend", metavar="B", help="default: the device's own")
    parser.add_argument("--device", default="cpu", metavar="D", help="default: cpu")
    parser.add_argument(
        "--n",
        type=length,
        action="append",
        metavar="N",
        help="queries and keys; may be repeated (default: 1024 and 4096)",
    )
    parser.add_argument(
        "--head-dim",
        type=length,
        action="append",
        metavar="D",
        help="default: 64; the suite: 128 and 64; may be repeated there",
    )
    parser.add_argument("--dtype", default="float32", metavar="T")


def _add_suite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--suite", action="store_true", help="the performance suite, on a CUDA device"
    )
    parser.add_argument(
        "--select",
        action="store_true",
        help="choosing keys at run time beside dense attention, on a CUDA device;"
        " --n, --rows, --records and --out as for the suite",
    )
    parser.add_argument(
        "--part",
        action="append",
        metavar="P",
        help="of the suite: forward, backward, shapes or ready; may be repeated",
    )
    parser.add_argument(
        "--rows", metavar="NAME,NAME", help="rows of the suite (default: all)"
    )
    parser.add_argument(
        "--warm",
        action="store_true",
        help="first compile in several processes what the suite will time",
    )
    parser.add_argument(
        "--records",
        type=Path,
        metavar="FILE.json",
        help="write what the suite measures, as it comes",
    )
    parser.add_argument(
        "--merge",
        type=Path,
        nargs="+",
        metavar="FILE.json",
        help="measure nothing: the report of these records",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.md",
        help="the suite's report (default: stdout)",
    )


def run(args: argparse.Namespace) -> int:
    """Time every attention of every file, or the suite."""
    if [args.suite, args.select, args.tiled, bool(args.files)].count(True) != 1:
        raise UsageError("bench: expected files, --suite, --select or --tiled")
    if args.suite:
        return _run_suite(args)
    if args.select:
        return _run_select(args)
    if args.tiled:
        return _run_tiled()
    head_dims = args.head_dim or [64]
    if len(head_dims) > 1 and not args.tune:
        raise UsageError("bench: `--head-dim`: expected one for files")
    values = values_of(args.set)
    sources = [read_source(path) for path in args.files]
    programs = [(s, name) for s in sources for name in chosen(s, args.entry)]
    # Everything is compiled before anything is printed: no half table on an error.
    traces = [driver.trace_source(s, name, values) for s, name in programs]
    if args.tune:
        return _run_tune(traces, args.head_dim or [128, 64])
    if args.compile:
        titles = "".join(f" {stage:>8}" for stage in (*STAGES, "total"))
        print(f"{'median ms':<20}{titles}")
        for source, name in programs:
            _print_stages(source, name, values, args.repeat)
        return 0
    setting = Setting(args.backend, args.device, args.dtype, head_dims[0], args.repeat)
    print(f"{'forward':<20} {'N':>8} {'ms':>10} {'dense ms':>10} {'ratio':>7}")
    for (_, name), trace in zip(programs, traces, strict=True):
        for n in args.n or LENGTHS:
            with progress(f"{name} at N = {n}", quiet=from_environment().quiet):
                took = _time(Attention(trace), n, setting)
            print(
                f"{name:<20} {n:>8} {took.pattern:>10.2f} {took.dense:>10.2f}"
                f" {took.dense / took.pattern:>7.2f}"
            )
    return 0


def _run_suite(args: argparse.Namespace) -> int:
    # Imports triton: other commands do without.
    from patternc.bench import record, run, suite, warm
    from patternc.bench.report import report

    try:
        if args.merge:
            return _write(args.out, report(record.read_all(args.merge)))
        names = (args.rows or ",".join(row.name for row in suite.ROWS)).split(",")
        rows = [suite.row_named(name) for name in names]
    except ValueError as error:
        raise UsageError(f"bench: {error}") from None
    parts = args.part or run.PARTS
    if wrong := set(parts).difference(run.PARTS):
        expected = f"expected {', '.join(run.PARTS)}"
        raise UsageError(f"bench: `--part`: {expected}; got {min(wrong)}")
    if not torch.cuda.is_available():
        raise UsageError("bench --suite: expected a CUDA device, found none")

    def keep(found: record.Records) -> None:
        if args.records is not None:
            write_whole(args.records, record.to_json(found).encode())

    head_dims = args.head_dim or run.HEAD_DIMS
    if args.warm:
        failed = warm.warm(parts, rows, head_dims)
        _tell(f"compiled ahead; {failed} processes failed")
    found = run.run_suite(parts, rows, head_dims, keep, _tell)
    return _write(args.out, report(found))


def _run_select(args: argparse.Namespace) -> int:
    # Imports triton: other commands do without.
    from patternc.bench import record, selecting
    from patternc.bench.report import report

    try:
        names = [name for name in (args.rows or "").split(",") if name]
        choices = [selecting.choice_named(name) for name in names]
    except ValueError as error:
        raise UsageError(f"bench: {error}") from None
    if not torch.cuda.is_available():
        raise UsageError("bench --select: expected a CUDA device, found none")

    def keep(found: record.Records) -> None:
        if args.records is not None:
            write_whole(args.records, record.to_json(found).encode())

    lengths = args.n or selecting.LENGTHS
    wanted = choices or selecting.CHOICES
    found = selecting.run_selecting(wanted, lengths, keep, _tell)
    if not choices and not args.n:
        short = selecting.run_selecting(
            selecting.OR_DENSE, selecting.SHORT, lambda _: None, _tell
        )
        found = record.merge([found, short])
        keep(found)
    _tell_times(found.selected)
    return _write(args.out, report(found))


def _tell_times(found: Sequence[Selected]) -> None:
    """The line of `plan.measured` that follows from what was measured."""
    from patternc.bench.crossover import fit
    from patternc.plan.measured import CHOOSING

    family = "sm_" + "".join(map(str, torch.cuda.get_device_capability()))
    made = fit(found, CHOOSING[0], family, torch.cuda.get_device_name())
    if made is not None:
        _tell(f"for CHOOSING, within {made.error:.0%}: {made.line}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _write(path: Path | None, text: str) -> int:
    if path is None:
        print(text, end="")
    else:
        write_whole(path, text.encode())
    return 0


def _run_tune(traces: Sequence[driver.Trace], head_dims: Sequence[int]) -> int:
    """Print lines for `plan.measured`, for each head size the fastest first."""
    if not torch.cuda.is_available():
        raise UsageError("bench --tune: expected a CUDA device, found none")
    from patternc.bench.tune import tune  # imports triton

    for head_dim in head_dims:
        try:
            fits = tune(traces, head_dim, _tell)
        except ValueError as error:
            raise UsageError(f"bench --tune: {error}") from None
        for fit in fits:
            print(fit.line)
    return 0


def _run_tiled() -> int:
    from patternc.bench.tiled import compare

    with progress("bench --tiled", quiet=from_environment().quiet):
        took = compare()
    print(f"{'tiled':<16} {took.ours:>9.1f} ms, {took.threads} threads")
    print(f"{'SDPA dense':<16} {took.dense:>9.1f} ms, {took.dense / took.ours:.2f}")
    print(f"{'FlexAttention':<16} {took.flex:>9.1f} ms, {took.flex / took.ours:.2f}")
    print(f"results differ by {took.distance:.1e}")
    return 0 if took.holds else 1


def _time(attention: Attention, n: int, setting: Setting) -> Milliseconds:
    try:
        return time_forward(attention, n, setting)
    except ValueError as error:
        raise UsageError(str(error)) from None


@dataclass(slots=True)
class _Clock:
    """Collects the milliseconds of each stage over several runs."""

    times: dict[str, list[float]]

    def measure(self, stage: str, work: Callable[[], Result]) -> Result:
        """Do `work` and note how long it took."""
        began = time.perf_counter()
        result = work()
        self.times[stage].append(1e3 * (time.perf_counter() - began))
        return result


def _print_stages(source: Source, name: str, values: Values, repeat: int) -> None:
    """One line: the median of each stage, and of the whole."""
    clock = _Clock({stage: [] for stage in STAGES})
    for _ in range(repeat):
        _compile_once(source, name, values, clock)
    medians = [statistics.median(clock.times[stage]) for stage in STAGES]
    totals = [sum(once) for once in zip(*clock.times.values(), strict=True)]
    row = "".join(f" {each:>8.1f}" for each in (*medians, statistics.median(totals)))
    print(f"{name:<20}{row}")


def _compile_once(source: Source, name: str, values: Values, clock: _Clock) -> None:
    """The driver's row, with a clock at every step."""
    file = clock.measure("parse", lambda: parse(source))
    attention = clock.measure("lower", lambda: lower(file, name, values))
    last = clock.measure("passes", lambda: passes.run(attention)[-1][1])
    clock.measure("asserts", lambda: decide_all(last))
    kernel = clock.measure("plan", lambda: plan(last, Schedule()))
    clock.measure("emit", lambda: emit(kernel, source.text, name))

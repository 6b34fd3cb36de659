"""`patternc bench`: how long the compiler takes, or the kernels that it makes.

In: programs. Out: with --compile the median milliseconds of each stage from the text
to the Triton source, for every attention; otherwise the median milliseconds of a
forward pass at each length, beside dense causal attention. `--suite` takes no programs:
it measures the performance suite beside its peers on a CUDA device and writes the
report. Not its job: correctness (`patternc verify`).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

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

Result = TypeVar("Result")
Values = Mapping[str, int | float]

STAGES = ("parse", "lower", "passes", "asserts", "plan", "emit")
LENGTHS = (1024, 4096)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE... or --suite, --compile, --repeat, --entry, --set, what to run with."""
    add_program(parser, several=True, needed=False)
    parser.add_argument(
        "--suite", action="store_true", help="the performance suite, on a CUDA device"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.md",
        help="the suite's report (default: stdout)",
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
    parser.add_argument("--head-dim", type=length, default=64, metavar="D")
    parser.add_argument("--dtype", default="float32", metavar="T")


def run(args: argparse.Namespace) -> int:
    """Time every attention of every file, or the suite."""
    if args.suite == bool(args.files):
        raise UsageError("bench: expected either files or --suite")
    if args.suite:
        return _run_suite(args.out)
    values = values_of(args.set)
    sources = [read_source(path) for path in args.files]
    programs = [(s, name) for s in sources for name in chosen(s, args.entry)]
    # Everything is compiled before anything is printed: no half table on an error.
    traces = [driver.trace_source(s, name, values) for s, name in programs]
    if args.compile:
        titles = "".join(f" {stage:>8}" for stage in (*STAGES, "total"))
        print(f"{'median ms':<20}{titles}")
        for source, name in programs:
            _print_stages(source, name, values, args.repeat)
        return 0
    setting = Setting(args.backend, args.device, args.dtype, args.head_dim, args.repeat)
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


def _run_suite(out: Path | None) -> int:
    from patternc.bench.report import run_suite  # imports triton, needs a device

    if not torch.cuda.is_available():
        raise UsageError("bench --suite: expected a CUDA device, found none")
    report = run_suite()
    if out is None:
        print(report, end="")
    else:
        write_whole(out, report.encode())
    return 0


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

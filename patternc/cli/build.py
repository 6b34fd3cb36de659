"""`patternc build FILE... -o X.patk`: kernels compiled ahead of time, into one file.

In: programs, targets, dtypes, head sizes. Out: a package of each, written whole, that
`patternc.runtime` runs without a compiler; with `--format c` a folder of C files that
need no Python either. Needs no GPU. Not its job: compiling
(`patternc.backends.triton.build`), C (`patternc.backends.c`).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from patternc import driver
from patternc.backends.triton.assembler import has_fixed_addresses
from patternc.backends.triton.build import Program, Wanted, build_packages
from patternc.backends.triton.emit import LARGEST_DIM
from patternc.backends.triton.recording import DTYPES
from patternc.backends.triton.targets import SHARED_BYTES
from patternc.cli.c_files import refuse_c, write_c
from patternc.cli.files import write_whole
from patternc.cli.options import Value, add_entry, add_errors, values_of
from patternc.cli.report import UsageError
from patternc.runtime.package import package_of
from patternc.syntax.load import read_source

FORMS = ("padded", "packed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE..., -o, --entry, --set, --format, and what the packages are for."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a .pat file")
    add_entry(parser)
    parser.add_argument(
        "--format",
        dest="output_format",
        choices=("package", "c"),
        default="package",
        help="one file for patternc.runtime (the default), or C files for NVIDIA's driver",
    )
    add_errors(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="X.patk",
        help="the package, or the folder of C files; of several programs the folder of"
        " their packages, named as they are",
    )
    add_build_options(parser)


def add_build_options(parser: argparse.ArgumentParser) -> None:
    """What a package is for, and how many processes make it."""
    parser.add_argument(
        "--target",
        type=_some(SHARED_BYTES),
        default=("sm_80", "sm_90"),
        metavar="T,...",
        help=f"GPUs: some of {', '.join(SHARED_BYTES)} (default: sm_80,sm_90)",
    )
    parser.add_argument(
        "--dtype",
        type=_some(DTYPES),
        default=("bf16",),
        metavar="D,...",
        help=f"some of {', '.join(DTYPES)} (default: bf16)",
    )
    parser.add_argument(
        "--head-dim",
        type=_head_dims,
        default=(128,),
        metavar="N,...",
        help=f"sizes of a head, from 1 to {LARGEST_DIM} (default: 128)",
    )
    parser.add_argument(
        "--backward", action="store_true", help="kernels of gradients too"
    )
    parser.add_argument(
        "--sequences",
        type=_some(FORMS),
        default=(),
        metavar="S,...",
        help="kernels of sequences of different lengths too: padded, packed",
    )
    parser.add_argument(
        "--no-decode",
        action="store_true",
        help="no kernels for few queries: a smaller package, slower on such calls",
    )
    parser.add_argument(
        "--jobs",
        type=_jobs,
        default=os.cpu_count() or 1,
        metavar="N",
        help="how many kernels are compiled at once (default: one for each core)",
    )


def run(args: argparse.Namespace) -> int:
    """Build, write, and say how large it became."""
    values, began = values_of(args.set), time.monotonic()
    sources = [read_source(file) for file in args.files]
    paths = _outputs(args)
    traces = [driver.trace_source(x, args.entry, values) for x in sources]
    if args.output_format == "c":
        kernel = traces[0].kernel
        refuse_c(kernel, args.target, args.backward)
        (content,) = build(traces, values, args)
        for path in write_c(package_of(content), kernel.attention, args.output):
            print(path)
        return 0
    built = build(traces, values, args)
    took = time.monotonic() - began
    for path, content in zip(paths, built, strict=True):
        path.parent.mkdir(exist_ok=True)
        write_whole(path, content)
        print(f"{path}: {len(content):,} bytes, {took:.1f} s")
    return 0


def _outputs(args: argparse.Namespace) -> list[Path]:
    """Where the package of each program goes. Raises `UsageError`."""
    if len(args.files) == 1:
        return [args.output]
    if args.output_format == "c":
        raise UsageError("--format c takes one program at a time")
    paths = [args.output / f"{Path(file).stem}.patk" for file in args.files]
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(f"two of the programs would be {path}")
    if args.output.exists() and not args.output.is_dir():
        raise UsageError(f"{args.output} is no folder for several packages")
    return paths


def build(
    traces: Sequence[driver.Trace], values: dict[str, Value], args: argparse.Namespace
) -> list[bytes]:
    """Packages for what `add_build_options` says. Raises as `build_packages` does."""
    wanted = Wanted(
        args.target,
        args.dtype,
        args.head_dim,
        args.backward,
        args.sequences,
        not args.no_decode,
    )
    if not has_fixed_addresses():
        told = "note: this machine draws every process's addresses by lot, so that code"
        print(f"{told} which spills may be other bytes next time", file=sys.stderr)
    programs = []
    for trace in traces:
        dense = driver.dense_trace(trace)
        other = None if dense is None else dense.kernel
        programs.append(Program(trace.kernel, other, values))
    try:
        return build_packages(programs, wanted, processes=args.jobs, told=_teller())
    except ValueError as error:
        raise UsageError(str(error)) from error


def _teller() -> Callable[[int, int], None]:
    """Shows on stderr how many kernels are done: in place, or some lines in a log."""
    stream = sys.stderr
    in_place = stream.isatty()

    def tell(done: int, count: int) -> None:
        line = f"kernels: {done} of {count}"
        if in_place:
            end = "\n" if done == count else ""
            print(f"\r{line}", end=end, file=stream, flush=True)
        elif done == count or done % max(1, count // 10) == 0:
            print(line, file=stream, flush=True)

    return tell


def _some(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """The type of an argument: some of these words, each once, with commas between."""
    words = tuple(known)

    def read(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(text.split(",")))
        for word in found:
            if word not in words:
                expected = ", ".join(words)
                raise argparse.ArgumentTypeError(f"{word!r} is none of {expected}")
        return found

    return read


def _head_dims(text: str) -> tuple[int, ...]:
    try:
        found = tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} are no integers") from None
    if not all(1 <= dim <= LARGEST_DIM for dim in found):
        raise argparse.ArgumentTypeError(f"{text} is not in 1..{LARGEST_DIM}")
    return found


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes")
    return int(text)

"""`patternc lint X.patk` or `X.pat`: kernels that spill, wait or load narrowly.

In: a package, or a program that is built for the targets without writing anything. Out:
one line for each finding; the exit code is 1 if there is one that counts. Not its job:
what the code uses (`patternc.backends.triton.machine_code` notes it).

A kernel's second launch, of tiles that a value which is not finite has spoiled, runs
rarely: what is found there is told and does not count.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from patternc import driver
from patternc.cli.build import add_build_options, build
from patternc.cli.inspect import opened, title
from patternc.cli.options import add_entry, values_of
from patternc.runtime.manifest import Variant
from patternc.runtime.package import Package, package_of
from patternc.syntax.load import read_source

_READ_NO_TILES = ("combine_kernel", "delta_kernel")


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one kernel; `counts` unless the kernel runs rarely."""

    variant: Variant
    what: str
    counts: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, and for a program what to build it for."""
    parser.add_argument("file", metavar="FILE", help="a package, or a .pat file")
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="errors of a program as text on stderr (the default) or JSON lines on stdout",
    )
    add_entry(parser)
    add_build_options(parser)


def run(args: argparse.Namespace) -> int:
    """Look at every kernel."""
    found = list(findings(_package(args)))
    for item in found:
        rarely = "" if item.counts else " (runs rarely)"
        print(f"{item.variant.target}: {title(item.variant)}: {item.what}{rarely}")
    bad = sum(item.counts for item in found)
    print(f"{bad} findings" if bad else "no findings")
    return 1 if bad else 0


def _package(args: argparse.Namespace) -> Package:
    if not args.file.endswith(".pat"):
        return opened(args.file)
    source, values = read_source(args.file), values_of(args.set)
    trace = driver.trace_source(source, args.entry, values)
    (content,) = build([trace], values, args)
    return package_of(content)


def findings(package: Package) -> Iterator[Finding]:
    """What is wrong, kernel by kernel."""
    for variant in package.manifest.all_variants:
        usage = variant.usage
        counts = not variant.constants.get("EXACT", False)
        if usage.spills:
            unit = "bytes" if variant.target.startswith("sm_") else "registers"
            yield Finding(variant, f"spills {usage.spills} {unit}", counts)
        if usage.serialised:
            codes = " ".join(usage.serialised)
            yield Finding(variant, f"products wait for one another ({codes})", counts)
        loads = usage.counts.get("wide", 0) + usage.counts.get("tma", 0)
        reads_tiles = variant.dtype and variant.kernel not in _READ_NO_TILES
        if reads_tiles and not loads:
            yield Finding(variant, "has no load of 16 bytes or by TMA", counts)

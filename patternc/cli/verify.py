"""`patternc verify FILE`: every backend against the dense reference.

In: a program, backends, a device. Out: one line for each dtype, size and quantity, the
error beside its budget from a float64 run, and 1 if any is over. Not its job: the
comparison (`patternc.verify`, `patternc.verify_gradients`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import torch

from patternc import backends, driver
from patternc.cli.entries import chosen
from patternc.cli.options import add_entry, add_program, values_of
from patternc.cli.report import UsageError, complain
from patternc.plan.kernel import Kernel
from patternc.progress import progress
from patternc.settings import from_environment, interpret_triton
from patternc.syntax.load import read_source
from patternc.verify import DTYPES, SIZES, Result, verify_each
from patternc.verify_gradients import gradients_each, refusals

INTERPRETED_SIZES = ((1, 1), (64, 128), (113, 203))
INTERPRETED_DTYPES = (torch.float32, torch.float16)
"""What Triton's interpreter can do, in seconds: it knows no bfloat16 and is slow."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, --entry, --set, --backend, --device and --backward."""
    add_program(parser)
    add_entry(parser)
    parser.add_argument(
        "--backend",
        action="append",
        metavar="B",
        help="a backend; may be repeated (default: all but the reference)",
    )
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="D",
        help="where to run (default: cpu, with Triton in its interpreter)",
    )
    parser.add_argument(
        "--backward",
        action="store_true",
        help="compare gradients, too, with those of the reference in float64",
    )


def run(args: argparse.Namespace) -> int:
    """Compile, compare, print; 1 if an error is over its budget."""
    names = args.backend or backends.compared_on(args.device)
    for name in names:
        if name not in backends.BACKENDS:
            known = ", ".join(backends.BACKENDS)
            raise UsageError(f"--backend {name}: the backends are {known}")
    _require_device(args.device)
    source = read_source(args.file)
    values = values_of(args.set)
    kernels = {
        entry: driver.compile_source(source, entry, values)
        for entry in chosen(source, args.entry)
    }
    if args.device == "cpu" and set(backends.INTERPRETED) & set(names):
        interpret_triton()
        complain("triton runs in its interpreter: small sizes, no bfloat16", "note")
    quiet = from_environment().quiet
    failures = 0
    for entry, kernel in kernels.items():
        for name in names:
            with progress(f"{entry} on {name}", quiet):
                results = list(_results(kernel, name, args.device, args.backward))
            if args.backward:
                for refusal in refusals(kernel, name):
                    complain(f"{entry}: {refusal.message}: not compared", "note")
            failures += sum(not result.ok for result in results)
            for result in results:
                print(_line(entry, result, args.format))
    if failures:
        complain(f"{failures} results are over their budget")
    return 1 if failures else 0


def _require_device(name: str) -> None:
    """Raise `UsageError` unless PyTorch can put a tensor there."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: {reason}") from None


def _results(
    kernel: Kernel, name: str, device: str, backward: bool
) -> Iterator[Result]:
    dtypes: Sequence[torch.dtype] = DTYPES
    sizes: Sequence[tuple[int, int]] = SIZES
    batch = 2
    if name in backends.INTERPRETED and device == "cpu":
        dtypes, sizes, batch = INTERPRETED_DTYPES, INTERPRETED_SIZES, 1
    for each in (verify_each, gradients_each) if backward else (verify_each,):
        yield from each(kernel, [name], device, dtypes=dtypes, sizes=sizes, batch=batch)


def _line(entry: str, result: Result, style: str) -> str:
    if style == "json":
        fields = asdict(result) | {"quantity": result.quantity.value}
        return json.dumps({"entry": entry, **fields, "ok": result.ok})
    quantity = f"d_{result.of}" if result.of else result.quantity.value
    return (
        f"{entry:<16} {result.backend:<9} {result.dtype:<8}"
        f" {result.n_q:>4} x {result.n_k:<4} {quantity:<6}"
        f" error {result.error:.2e} of {result.budget:.2e}  head {result.head:<3}"
        f" {'ok' if result.ok else 'FAILED'}"
    )

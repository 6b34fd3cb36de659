"""Random programs over the whole language, for as long as wanted.

    python -m tests.fuzz.run --seed 7 --count 20000 --seconds 3600

In: a seed and a count. Out: progress, and every program that crashes the compiler or
gives two answers, with the command that runs it again. Exit status 1 if there is one.
Program `i` of a seed is the same whatever the count. Not its job: one program
(`tests.fuzz.compare`).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import torch

from tests.fuzz.compare import Outcome, Stages, compare
from tests.fuzz.programs import Program, draw_program

MOST_FAILURES = 20
REPORT_EVERY = 200


@dataclass
class Tally:
    """What became of the programs so far."""

    compared: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    triton: int = 0
    pairs: int = 0
    visible: int = 0
    failures: int = 0
    proved: int = 0
    refuted: int = 0
    open: int = 0

    def add(self, outcome: Outcome) -> None:
        if outcome.refused:
            self.refused[", ".join(outcome.refused)] += 1
            return
        self.compared += 1
        self.triton += outcome.ran_triton
        self.pairs += outcome.pairs
        self.visible += outcome.visible
        self.proved += outcome.decided.proved
        self.refuted += outcome.decided.refuted
        self.open += outcome.decided.open

    def line(self) -> str:
        share = self.visible / max(self.pairs, 1)
        refused = ", ".join(f"{n} {code}" for code, n in self.refused.most_common())
        return (
            f"{self.compared} compared, {self.triton} of them in triton, "
            f"{self.failures} failures, {share:.0%} of pairs visible; asserts: "
            f"{self.proved} proved, {self.refuted} refuted, {self.open} open; "
            f"refused: {refused or 'none'}"
        )


def program_of(seed: int, index: int) -> Program:
    """Program `index` of a seed."""
    return draw_program(Random(f"{seed}:{index}"))


def stages_of(index: int) -> Stages:
    """What costs much is run for one program in a few.

    So much that 20,000 programs take an hour of one core: the search for an order and
    proofs cost ten times as much as all the rest, the interpreter a hundred times.
    """
    return Stages(
        findings=index % 8 == 0,
        order=index % 8 == 1,
        budget=index % 4 == 2,
        triton=index % 200 == 100,
        asserts=index % 32 == 3,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.run", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--show", action="store_true", help="print the programs")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    # Before anything imports triton: there need be no GPU.
    os.environ.setdefault("TRITON_INTERPRET", "1")
    print(f"seed {options.seed}, {options.count} programs", flush=True)
    tally, began, done = Tally(), time.monotonic(), 0
    for index in range(options.start, options.start + options.count):
        if time.monotonic() - began > options.seconds:
            break
        tried = _try(options.seed, index, options.show)
        done += 1
        if tried is None:
            tally.failures += 1
        else:
            tally.add(tried)
        if done % REPORT_EVERY == 0:
            print(f"{_rate(done, began)}: {tally.line()}", flush=True)
        if tally.failures == MOST_FAILURES:
            print("too many failures", flush=True)
            break
    print(f"{_rate(done, began)}: {tally.line()}", flush=True)
    return int(tally.failures > 0 or done < options.count)


def _rate(done: int, began: float) -> str:
    seconds = time.monotonic() - began
    return (
        f"{done} programs in {seconds:.0f} s ({done / max(seconds, 1e-9):.1f}/s, "
        f"{time.process_time():.0f} s of one core)"
    )


def _try(seed: int, index: int, show: bool) -> Outcome | None:
    """What became of a program; None, and a report, for a crash or a difference."""
    program = program_of(seed, index)
    if show:
        print(program.text)
    try:
        rng = Random(f"{seed}:{index}:asserts")
        return compare(program, rng, stages_of(index))
    except Exception:  # noqa: BLE001 (whatever it is, it is a finding)
        print(f"--- failure: --seed {seed} --start {index} --count 1")
        print(program.text)
        print(program.sizes, program.parameters)
        traceback.print_exc(file=sys.stdout)
        return None


if __name__ == "__main__":
    sys.exit(main())

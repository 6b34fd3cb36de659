"""Any bytes as a `.pat` file, guided by the code that they reach (atheris).

    python -m tests.fuzz.parser_target --seconds 600

In: bytes that libFuzzer makes from the standard patterns and the examples. Out: nothing;
anything but diagnostics ends the run, and the bytes lie in `build/`. Not its job: what
a program means (`tests.fuzz.run`). Needs the extra `fuzz`.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["patternc", "lark"]):
    from patternc.check import check_file
    from patternc.diagnostics import PatternError
    from patternc.render import render_json, render_text
    from patternc.syntax.load import read_source
    from patternc.syntax.parse import parse
    from patternc.syntax.words import ASSERT_WORDS, KEYWORDS

ROOT = Path(__file__).parents[2]
LENGTH = 4096
"""Bytes of the longest file; the longest of the seeds has about as many."""

SLOWEST = 20
"""Seconds after which a file counts as a hang."""

SIGNS = ("==", "<=", "!=", "//", "%", "[q, k]", "{0, 1}", "(1)", "= 7", ": int", "&")
NAMES = ("q.x", "causal", "window", "layer", "step", "range", "labels", "valid = n")


_WORDS = re.compile(rb"[A-Za-z_]\w*|[0-9.]+|\s+|//|[<>=!]=|.", re.DOTALL)


def mutate(data: bytes, longest: int, seed: int) -> bytes:
    """A file with words moved, doubled, dropped or put in; or with other bytes.

    Bytes alone would hardly ever get past the grammar.
    """
    rng = Random(seed)
    words = _WORDS.findall(data)
    if not words or rng.random() < 0.25:
        return bytes(atheris.Mutate(data, longest))
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(len(words) + 1)
        run = words[start : start + rng.choice((1, 1, 2, 3, 8, 30))]
        at = rng.randrange(len(words) + 1)
        match rng.randrange(4):
            case 0:
                del words[start : start + len(run)]
            case 1:
                words[at:at] = run
            case 2:
                words[at : at + len(run)] = run
            case _:
                word = rng.choice((*KEYWORDS, *ASSERT_WORDS, *SIGNS, *NAMES, "-1", "0"))
                words[at : at + rng.randint(0, 1)] = [f" {word} ".encode()]
    return b"".join(words)[:longest]


def check_bytes(path: Path, data: bytes) -> None:
    """What `patternc check` says of a file before it decides its assertions."""
    path.write_bytes(data)
    try:
        file = parse(read_source(path))
    except PatternError as error:
        found = error.diagnostics
    else:
        found = check_file(file)
    render_text(found)
    render_json(found)


def main(arguments: list[str]) -> None:
    """Run until the time is over or something is found."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.parser_target")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = _seeds(folder)
        path = folder / "fuzz.pat"
        atheris.Setup(
            [
                sys.argv[0],
                str(seeds),
                f"-max_total_time={options.seconds}",
                f"-seed={options.seed}",
                f"-max_len={LENGTH}",
                f"-timeout={SLOWEST}",
                f"-artifact_prefix={ROOT / 'build'}/",
            ],
            lambda data: check_bytes(path, data),
            custom_mutator=mutate,
        )
        atheris.Fuzz()


def _seeds(folder: Path) -> Path:
    """Copies, since libFuzzer adds what it finds beside them."""
    seeds = folder / "seeds"
    seeds.mkdir()
    for place in ("stdlib_patterns", "examples", "tests/conformance", "tests/errors"):
        for number, file in enumerate(sorted((ROOT / place).rglob("*.pat"))):
            copy = seeds / f"{file.parent.name}_{number}.pat"
            copy.write_bytes(file.read_bytes())
    return seeds


if __name__ == "__main__":
    main(sys.argv[1:])

"""`patternc explain FILE`: what the compiler made of an attention, and why.

In: a program and an attention. Out: text, or with --json one JSON object. Needs no
torch. Not its job: the explanation itself (`patternc.explain`).
"""

from __future__ import annotations

import argparse
import json

from patternc import driver
from patternc.cli.options import add_entry, add_program, values_of
from patternc.explain import as_json, as_text, explain
from patternc.syntax.load import read_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, --entry, --set and --json."""
    add_program(parser)
    add_entry(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Trace the pipeline, then tell."""
    source = read_source(args.file)
    trace = driver.trace_source(source, args.entry, values_of(args.set), None)
    found = explain(trace)
    print(json.dumps(as_json(found)) if args.json else as_text(found))
    return 0

"""`patternc check FILE...`: every error of every file.

In: paths. Out: diagnostics, and 1 if any is an error. Not its job: compiling; nothing
here may import torch, triton or sympy (tests/test_import.py).
"""

from __future__ import annotations

import argparse

from patternc import driver
from patternc.cli.options import add_program
from patternc.cli.report import report
from patternc.diagnostics import PatternError
from patternc.syntax.load import read_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE... and --format."""
    add_program(parser, several=True)


def run(args: argparse.Namespace) -> int:
    """Check each file on its own, so that one bad file does not hide another."""
    failed = False
    for path in args.files:
        try:
            found = driver.check_source(read_source(path))
        except PatternError as error:
            found = error.diagnostics
        report(found, args.format)
        bad = any(item.is_error for item in found)
        if not bad and args.format == "text":
            print(f"{path}: ok")
        failed = failed or bad
    return 1 if failed else 0

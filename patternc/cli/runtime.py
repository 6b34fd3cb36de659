"""`patternc runtime -o DIR`: what runs packages, as a wheel of its own.

In: a folder. Out: the path of a wheel that needs torch alone. Not its job: its content
(`patternc.runtime_wheel`), packages (`patternc build`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from patternc.cli.files import write_whole
from patternc.runtime_wheel import wheel_bytes, wheel_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="the folder of the wheel; made if it is not there (default: here)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the wheel and print where it is."""
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / wheel_name()
    write_whole(path, wheel_bytes())
    print(path)
    return 0

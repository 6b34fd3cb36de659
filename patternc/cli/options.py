"""Arguments that several commands share.

In: an argument parser, or the text of one argument. Out: declared arguments, and their
values. Not its job: what a command does with them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from patternc.cli.report import UsageError

Value = int | float

LONGEST = 2**30
"""The greatest length and offset: positions and their differences stay in 32 bits."""


def add_program(
    parser: argparse.ArgumentParser, several: bool = False, needed: bool = True
) -> None:
    """FILE (or FILE...), and how errors are shown."""
    if several:
        count = "+" if needed else "*"
        parser.add_argument("files", nargs=count, metavar="FILE", help="a .pat file")
    else:
        parser.add_argument("file", metavar="FILE", help="a .pat file")
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="errors as text on stderr (the default) or JSON lines on stdout",
    )


def add_errors(parser: argparse.ArgumentParser) -> None:
    """--errors: how errors are shown, where --format says what is written."""
    parser.add_argument(
        "--errors",
        dest="format",
        choices=("text", "json"),
        default="text",
        help="errors as text on stderr (the default) or JSON lines on stdout",
    )


def add_entry(parser: argparse.ArgumentParser) -> None:
    """--entry and --set."""
    parser.add_argument(
        "--entry",
        metavar="E",
        help="the attention; may be left out if the file has only one",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="the value of one of its parameters; may be repeated",
    )


def values_of(settings: Iterable[str]) -> dict[str, Value]:
    """The parameters given as `name=value`. Raises `UsageError`."""
    values: dict[str, Value] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--set {setting}: expected NAME=VALUE")
        if name in values:
            raise UsageError(f"--set {setting}: {name} was set before")
        values[name] = _number(setting, text)
    return values


def _number(setting: str, text: str) -> Value:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--set {setting}: {text!r} is not a number") from None


def length(text: str) -> int:
    """A number of tokens, from 1 to 2^30."""
    return _within(text, 1, LONGEST)


def offset(text: str) -> int:
    """A q_offset, from -2^30 to 2^30."""
    return _within(text, -LONGEST, LONGEST)


def head(text: str) -> int:
    """A query head, from 0."""
    return _within(text, 0, LONGEST)


def _within(text: str, least: int, greatest: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
    if not least <= value <= greatest:
        raise argparse.ArgumentTypeError(f"{value} is not in {least}..{greatest}")
    return value

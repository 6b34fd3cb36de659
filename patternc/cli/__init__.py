"""The command line: `patternc COMMAND FILE ...`.

In: the arguments. Out: results on stdout, messages on stderr, and the exit code: 0 if
all is well, 1 for errors in a program, a file or a verification, 2 for arguments that
make no sense. Not its job: any work; each command is a module of this package, which
is imported only when it is called, so that `patternc check` stays light.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from patternc.cli.report import UsageError, complain, report
from patternc.diagnostics import PatternError
from patternc.version import VERSION

COMMANDS = {
    "check": "find every error in pattern files",
    "mask": "show, count or write the mask of one head",
    "patterns": "list the standard patterns, or show one",
    "explain": "show what the compiler made of an attention, and why",
    "compile": "write a kernel module that needs torch and triton only",
    "build": "compile kernels ahead of time, into a package that needs no compiler",
    "export": "write a program as other libraries and languages load it",
    "runtime": "write what runs packages, as a wheel that needs torch alone",
    "inspect": "show what is in a package",
    "lint": "find kernels that spill, wait or load narrowly",
    "verify": "run every backend against the dense reference",
    "bench": "time the compiler, or the kernels it makes",
}
"""Every command, in reading order, with one line of help."""


class Command(Protocol):
    """What a module of this package provides."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Usage errors raise `SystemExit`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader went away (`patternc mask ... | head`): no traceback, and nothing
        # more to write when Python closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        complain("interrupted")
        return 130


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in COMMANDS:
        # Prints help, the version or a usage error, and exits.
        _overview().parse_args(arguments or ["--help"])
    name = arguments[0]
    # The one lazy import of the command line: see the module's docstring.
    command = cast(Command, importlib.import_module(f"patternc.cli.{name}"))
    parser = argparse.ArgumentParser(
        prog=f"patternc {name}",
        description=COMMANDS[name].capitalize() + ".",
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    args = parser.parse_args(arguments[1:])
    try:
        return command.run(args)
    except PatternError as error:
        report(error.diagnostics, args.format)
        return 1
    except UsageError as error:
        parser.error(str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{error.strerror or error}")
        return 1


def _overview() -> argparse.ArgumentParser:
    """The parser that only knows the commands' names."""
    width = max(len(name) for name in COMMANDS)
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="patternc",
        description="A compiler for attention patterns.",
        epilog=f"commands:\n{lines}\n\n`patternc COMMAND --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"patternc {VERSION}")
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND")
    return parser

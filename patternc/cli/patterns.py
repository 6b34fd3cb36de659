"""`patternc patterns [NAME]`: the standard patterns, all in a line each, or one whole.

In: nothing, or a name. Out: a list; or the pattern's file and its picture in the
terminal, drawn as the file's own `# Picture:` line says. Needs no torch. Not its job:
checking the files, which their tests do.
"""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
from dataclasses import dataclass

from patternc import stdlib_patterns
from patternc.cli import mask
from patternc.cli.illustrations import ILLUSTRATIONS
from patternc.cli.report import UsageError
from patternc.source import Source
from patternc.syntax import ast
from patternc.syntax.parse import parse

_PICTURE = "# Picture:"
_PAPER = re.compile(r"arXiv (\d{4}\.\d{5})")
_CLAIMS = "claims"
"""The attention of a file that states, for a pattern, what its paper claims."""


@dataclass(frozen=True, slots=True)
class Heading:
    """What the comment on top of a standard file says.

    `paper` is "arXiv" and a number, or nothing; `picture` the arguments of
    `patternc mask` that draw it.
    """

    signature: str
    summary: str
    paper: str
    picture: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NAME, which may be left out."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="the pattern to show (default: list)"
    )
    parser.set_defaults(format="text")


def run(args: argparse.Namespace) -> int:
    """List, or show."""
    if args.name is None:
        _list()
    else:
        _show(args.name)
    return 0


def heading_of(name: str) -> Heading:
    """The heading of a standard file. Raises `KeyError` for another name."""
    lines = stdlib_patterns.text(name).splitlines()
    comment = [line for line in lines if line.startswith("#")]
    signature, _, summary = comment[0].removeprefix("# ").partition(": ")
    found = _PAPER.search("\n".join(comment))
    drawn = [line for line in comment if line.startswith(_PICTURE)]
    picture = shlex.split(" ".join(line.removeprefix(_PICTURE) for line in drawn))
    paper = f"arXiv {found[1]}" if found else ""
    return Heading(signature, summary, paper, tuple(picture))


def picture_of(name: str) -> tuple[mask.Bools, int]:
    """The mask [n_q, n_k] that a standard file's picture shows, and its head."""
    source = Source(f"{name}.pat", stdlib_patterns.text(name))
    parser = argparse.ArgumentParser(prog=f"{name}.pat", allow_abbrev=False)
    mask.add_view(parser)
    args = parser.parse_args(heading_of(name).picture)
    if args.entry is None:
        declared = {i.name.text for i in parse(source).items if _is_attention(i)}
        args.entry = name if name in declared else _CLAIMS
    given = ILLUSTRATIONS[name]() if name in ILLUSTRATIONS else {}
    return mask.mask_of(source, mask.view_of(args), given, "reference"), args.head


def _is_attention(item: ast.Item) -> bool:
    return isinstance(item, ast.Attention)


def _list() -> None:
    headings = [(name, heading_of(name)) for name in stdlib_patterns.files()]
    width = max(len(name) for name, _ in headings)
    for name, heading in headings:
        print(f"{name:<{width}}  {heading.paper:<16}  {heading.summary}")


def _show(name: str) -> None:
    known = stdlib_patterns.files()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = (
            f"did you mean {close[0]}?" if close else "`patternc patterns` lists them"
        )
        raise UsageError(f"there is no standard pattern {name}; {hint}")
    print(stdlib_patterns.text(name))
    seen, wanted = picture_of(name)
    mask.show(seen, wanted)

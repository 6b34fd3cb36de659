"""`patternc compile FILE -o DIR`: kernel modules that need torch and triton only.

In: a program. Out: `DIR/<stem>.py`, or `DIR/<stem>_<attention>.py` for each attention
if the file has several and none was chosen. Every module is made before the first is
written, and each is written whole: on an error nothing changes. Needs no GPU and no
torch. Not its job: the text of a module (`patternc.backends.triton.emit`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from patternc import driver
from patternc.backends.hopper.route import chosen_route
from patternc.backends.triton.emit import emit
from patternc.cli.entries import chosen
from patternc.cli.files import write_whole
from patternc.cli.options import add_entry, add_program, values_of
from patternc.source import Source
from patternc.syntax.load import read_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, -o, --entry, --set and --target."""
    add_program(parser)
    add_entry(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="the folder for the modules; made if it is not there",
    )
    parser.add_argument(
        "--target",
        choices=("any", "sm_90"),
        default="any",
        help="sm_90: beside the portable kernels one for Hopper, where that is faster",
    )


def run(args: argparse.Namespace) -> int:
    """Make every module's text, then write them and print their paths."""
    source = read_source(args.file)
    modules = {}
    for name, entry in _modules(source, Path(args.file).stem, args.entry).items():
        kernel = driver.compile_source(source, entry, values_of(args.set))
        hopper = chosen_route(kernel) if args.target == "sm_90" else None
        modules[name] = emit(kernel, source.text, _identifier(name), hopper)
    args.output.mkdir(parents=True, exist_ok=True)
    for name, text in modules.items():
        path = args.output / f"{name}.py"
        write_whole(path, text.encode())
        print(path)
    return 0


def _modules(source: Source, stem: str, entry: str | None) -> dict[str, str]:
    """The name of each module to write and the attention that it is made from."""
    names = chosen(source, entry)
    if len(names) == 1:
        return {stem: names[0]}
    return {f"{stem}_{name}": name for name in names}


def _identifier(name: str) -> str:
    """A Python name for what the module defines: `01-causal` gives `p_01_causal`."""
    letters = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    return letters if letters.isidentifier() else f"p_{letters}"

"""`patternc export FILE --format F -o DIR`: a program for other libraries and languages.

In: a `.pat` file or a package. Out: a folder that Hugging Face's `kernels` library loads,
or the C files of a package. Every text is made before the first is written. Needs no
GPU. Not its job: the texts (`patternc.backends.hub`, `patternc.backends.c`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from patternc import driver
from patternc.backends.hub.emit import hub_of_kernel, hub_of_package
from patternc.cli.c_files import write_c
from patternc.cli.files import write_whole
from patternc.cli.options import add_entry, add_errors, values_of
from patternc.cli.report import UsageError
from patternc.runtime.format import PackageError
from patternc.runtime.package import Package, package_of, read_package
from patternc.source import Source
from patternc.syntax.load import read_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, --format, -o, and --entry and --set of a program."""
    parser.add_argument("file", metavar="FILE", help="a .pat file, or a package")
    parser.add_argument(
        "--format",
        dest="output_format",
        choices=("hf-kernel", "c"),
        required=True,
        help="a folder for Hugging Face's kernels library, or a package's C files",
    )
    add_errors(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="the folder; made if it is not there",
    )
    add_entry(parser)


def run(args: argparse.Namespace) -> int:
    """Make, write, and print the folder."""
    if args.file.endswith(".pat"):
        _write(_of_program(args), args.output)
    else:
        if args.entry is not None or args.set:
            raise UsageError("--entry and --set are for .pat files, not for packages")
        package = _opened(args.file)
        if args.output_format == "c":
            _write_c(package, args.output)
        else:
            content = Path(args.file).read_bytes()
            _write(hub_of_package(package_of(content), content), args.output)
    print(args.output)
    return 0


def _of_program(args: argparse.Namespace) -> Mapping[str, bytes]:
    if args.output_format == "c":
        raise UsageError("C files are made of packages: use patternc build --format c")
    source = read_source(args.file)
    return hub_of_kernel(driver.compile_source(source, args.entry, values_of(args.set)))


def _opened(file: str) -> Package:
    try:
        return read_package(file)
    except PackageError as error:
        raise UsageError(str(error)) from error


def _write_c(package: Package, folder: Path) -> None:
    own = package.manifest.source
    source = Source(own.file, own.text)
    kernel = driver.compile_source(source, own.entry, dict(own.values))
    write_c(package, kernel.attention, folder)


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)

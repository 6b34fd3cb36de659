"""`patternc inspect X.patk`: what is in a package.

In: a package. Out: text, or with --json its manifest. Needs no GPU, no torch and no
compiler; --sass alone asks Triton's disassembler. Not its job: judging it
(`patternc lint`).
"""

from __future__ import annotations

import argparse
import importlib
import re
from collections import Counter
from pathlib import Path

from patternc.cli.report import UsageError
from patternc.runtime.codec import encode
from patternc.runtime.format import PackageError
from patternc.runtime.manifest import Facts, Manifest, Variant
from patternc.runtime.package import Package, read_package

FLAGS = ("EXACT", "IS_SPLIT", "PACKED")

_SHOWN = ("HGMMA", "HMMA", "UTMALDG", "LDGSTS", "LDG", "STG", "STL", "LDL", "MUFU")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """X.patk, --json and --sass."""
    parser.add_argument("file", metavar="X.patk", help="a package")
    parser.add_argument("--json", action="store_true", help="the manifest")
    parser.add_argument(
        "--sass",
        action="store_true",
        help="count instructions in NVIDIA's machine code, with Triton's disassembler",
    )


def run(args: argparse.Namespace) -> int:
    """Read, then tell."""
    package = opened(args.file)
    if args.json:
        print(encode(package.manifest).decode(), end="")
        return 0
    print("\n".join(_head(package.manifest, Path(args.file).stat().st_size)))
    for target in package.manifest.targets:
        print(f"\n{target}")
        _tell_target(package, target, args.sass)
        if package.dense is not None:
            print("  where choosing does not pay:")
            _tell_target(package.dense, target, args.sass)
    return 0


def _tell_target(package: Package, target: str, sass: bool) -> None:
    """The kernels of one program."""
    own = [x for x in package.manifest.variants if x.target == target]
    print("\n".join(_table(package, own)))
    if sass and target.startswith("sm_"):
        print("\n".join(_instructions(package, own)))


def opened(file: str) -> Package:
    """The package of an argument. Raises `OSError` and `UsageError`."""
    try:
        return read_package(file)
    except PackageError as error:
        raise UsageError(str(error)) from error


def title(variant: Variant) -> str:
    """Which kernel it is, in a few words."""
    flags = [word.lower() for word in FLAGS if variant.constants.get(word)]
    form = variant.constants.get("SEQUENCES", "none")
    words = [*flags, *([str(form)] if form != "none" else [])]
    dim = variant.constants.get("HEAD_DIM", variant.constants.get("VALUE_DIM"))
    name = variant.kernel.removesuffix("_kernel")
    own = [variant.dtype] if variant.dtype else []
    return " ".join([name, *own, *([] if dim is None else [f"D={dim}"]), *words])


def _head(manifest: Manifest, size: int) -> list[str]:
    facts, source = manifest.facts, manifest.source
    values = ", ".join(f"{name}={value}" for name, value in source.values.items())
    compilers = ", ".join(f"{x} {y}" for x, y in manifest.compilers.items())
    gradients = "forward and backward" if manifest.backward else "forward"
    lengths = ", ".join(str(lists.length) for lists in facts.lists)
    heads = f"{facts.heads} heads, {facts.kv_heads} of keys and values"
    dims = ", ".join(map(str, manifest.head_dims))
    return [
        f"{facts.name}: {heads}, tiles of {facts.block_q} x {facts.block_k}",
        f"from {source.file} ({source.sha256[:16]}){', with ' + values if values else ''}",
        f"built by patternc {manifest.patternc} with {compilers}",
        f"{gradients}; {', '.join(manifest.dtypes)}; head sizes {dims}",
        *_expected(manifest),
        *_data(manifest.facts),
        *([f"tile lists for {lengths} tokens"] if lengths else []),
        f"{len(manifest.all_variants)} kernels, {size:,} bytes",
    ]


def _data(facts: Facts) -> list[str]:
    """The inputs of calls, and what is chosen."""
    given = ", ".join(
        f"{x.name} [{', '.join(axis.kind for axis in x.axes)}] of {x.element}"
        for x in facts.inputs
        if x.is_given
    )
    lines = [f"reads {given}"] if given else []
    if facts.plan is not None:
        names = ", ".join(selection.table for selection in facts.plan.selections)
        params = ", ".join(
            name if value is None else f"{name}={value}"
            for name, value in facts.plan.params.items()
        )
        lines.append(
            f"chooses {names}{'; run-time parameters ' + params if params else ''}"
        )
    return lines


def _expected(manifest: Manifest) -> list[str]:
    """What is predicted, a line for each device."""
    lines = []
    for device in dict.fromkeys(item.device for item in manifest.expected):
        own = [item for item in manifest.expected if item.device == device]
        times = ", ".join(
            f"{item.work} D={item.head_dim} {item.milliseconds:.2f} ms" for item in own
        )
        lines.append(f"expected on {device}, {own[0].length} tokens, batch 1: {times}")
    return lines


def _table(package: Package, variants: list[Variant]) -> list[str]:
    width = max((len(title(x)) for x in variants), default=0)
    head = f"  {'kernel':<{width}}  warps stages  shared  registers  spills   bytes"
    rows = [
        f"  {title(x):<{width}}  {x.warps:5} {x.stages:6} {x.shared:7}"
        f"  {x.usage.registers:9}  {x.usage.spills:6}"
        f"  {package.manifest.blobs[x.code].size:6}"
        f"{'  + PTX' if x.ptx is not None else ''}"
        f"{'  ' + ' '.join(x.usage.serialised) if x.usage.serialised else ''}"
        for x in variants
    ]
    return [head, *rows]


def _instructions(package: Package, variants: list[Variant]) -> list[str]:
    """How often each kind of instruction is in the machine code."""
    try:
        tools = importlib.import_module("triton.tools.disasm")
    except ImportError as error:
        raise UsageError("--sass: Triton is not installed") from error
    lines = ["  instructions"]
    for variant in variants:
        text = str(tools.get_sass(package.blob(variant.code)))
        counts = Counter(re.findall(r"\b(?:@!?U?P\d+ )?([A-Z][A-Z0-9]+)", text))
        wide = len(re.findall(r"\bLDG\.E\.128|\bLDGSTS\.\S*128", text))
        told = [f"{counts[name]} {name}" for name in _SHOWN if counts[name]]
        lines.append(f"  {title(variant)}: {', '.join(told)}, {wide} loads of 128 bits")
    return lines

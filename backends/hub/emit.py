"""Folders that Hugging Face's `kernels` library loads (`get_local_kernel`).

In: a kernel, whose module Triton compiles when it runs, or a package, which needs no
compiler. Out: the content of each file by its path. Not its job: uploading anything.

A folder has one variant for each kind of GPU, without compiled extensions: pure Python
that imports torch (and Triton) and its own files by relative names, from any place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources

from patternc.backends.template import fill
from patternc.backends.triton.emit import emit
from patternc.diagnostics import Diagnostic, PatternError
from patternc.ir.floats import float_reads
from patternc.ir.nodes import Attention
from patternc.plan.kernel import Kernel
from patternc.runtime.package import Package
from patternc.version import VERSION

_HERE = __name__.rpartition(".")[0]

_GPUS = {"cuda": "sm_", "rocm": "gfx"}
"""The variants of a folder, and how the names of their targets begin."""


def hub_of_kernel(kernel: Kernel) -> Mapping[str, bytes]:
    """The files of a program. Triton and a C compiler are needed where it runs.

    Raises `PatternError` for a program that chooses keys at run time.
    """
    attention = kernel.attention
    if attention.selections:
        message = "a folder for `kernels` has no selections yet"
        place, label = attention.selections[0].span, "patternc plans what this chooses"
        advice = "load it with patternc.load where it runs"
        refusal = Diagnostic("unsupported", message, place, label, advice)
        raise PatternError([refusal])
    source = attention.span.source
    names = _names(attention, source.name.rpartition("/")[2])
    scored = {x.table for case in attention.scores for x in float_reads(case.score)}
    names |= {
        "scored": "".join(f'"{name}", ' for name in sorted(scored)).strip(),
        "has_backward": "True",
        "needs": "It needs PyTorch and Triton.",
    }
    files = {
        "calls.py": fill(_HERE, "compiled.py", names),
        "generated.py": emit(kernel, source.text, attention.name),
    }
    return _folder(names, {x: y.encode() for x, y in files.items()}, tuple(_GPUS))


def hub_of_package(package: Package, content: bytes) -> Mapping[str, bytes]:
    """The files of a package, whose bytes are `content`. PyTorch and a driver suffice."""
    manifest, facts = package.manifest, package.manifest.facts
    names = {
        "name": facts.name,
        "version": VERSION,
        "file": manifest.source.file,
        "heads": str(facts.heads),
        "kv_heads": str(facts.kv_heads),
        "params": ", ".join(facts.params) or "none",
        "has_backward": str(manifest.backward),
        "needs": "It needs PyTorch alone.",
    }
    files = {
        "calls.py": fill(_HERE, "packaged.py", names).encode(),
        "attention.patk": content,
    }
    for path in sorted(resources.files("patternc.runtime").iterdir(), key=str):
        if path.name.endswith(".py"):
            files[f"runtime/{path.name}"] = path.read_bytes()
    kinds = [
        kind
        for kind, start in _GPUS.items()
        if any(target.startswith(start) for target in manifest.targets)
    ]
    return _folder(names, files, tuple(kinds))


def _names(attention: Attention, file: str) -> dict[str, str]:
    return {
        "name": attention.name,
        "version": VERSION,
        "file": file,
        "heads": str(attention.heads),
        "kv_heads": str(attention.kv_heads),
        "params": ", ".join(x.name for x in attention.params) or "none",
        "inputs": ", ".join(x.name for x in attention.inputs) or "none",
    }


def _folder(
    names: dict[str, str], own: Mapping[str, bytes], kinds: tuple[str, ...]
) -> dict[str, bytes]:
    """Every file of every variant."""
    shared = {
        "__init__.py": fill(_HERE, "start.py", names).encode(),
        "layers.py": fill(_HERE, "layers.py", names).encode(),
        **own,
    }
    digest = hashlib.sha256()
    for path, content in sorted(shared.items()):
        digest.update(f"{path} {len(content)}\n".encode() + content)
    found = {"README.md": fill(_HERE, "readme.md", names).encode()}
    for kind in kinds:
        told = _metadata(names["name"], kind, digest.hexdigest()[:16])
        for path, content in {**shared, "metadata.json": told}.items():
            found[f"build/torch-{kind}/{path}"] = content
    return found


def _metadata(name: str, kind: str, digest: str) -> bytes:
    """What `kernels` reads first; the id is a module's name, unlike every other."""
    word = name.lower().replace("_", "-").strip("-")
    told = {
        "name": word,
        "id": f"_{word.replace('-', '_')}_{kind}_{digest}",
        "version": 1,
        "license": "unknown",
        "python-depends": [],
        "backend": {"type": kind},
    }
    return (json.dumps(told, indent=2) + "\n").encode()

"""Folders for the `kernels` library, loaded as that library does."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import torch

from patternc import driver
from patternc.backends.hub.emit import hub_of_kernel, hub_of_package
from patternc.cli import main
from patternc.diagnostics import PatternError
from patternc.source import Source
from tests.runtime.packages import TRAINED, kernel_of, quick_bytes, quick_package

ALLOWED = {"torch", "triton"} | set(sys.stdlib_module_names)

LOADING = """
import importlib.util, json, sys
from pathlib import Path
folder = Path(sys.argv[1])
told = json.loads((folder / "metadata.json").read_text())
spec = importlib.util.spec_from_file_location(told["id"], folder / "__init__.py")
kernel = importlib.util.module_from_spec(spec)
sys.modules[told["id"]] = kernel
spec.loader.exec_module(kernel)
assert "patternc" not in sys.modules
"""
"""What `kernels.importer` does, in short."""

CALLING = """
import torch
torch.manual_seed(0)
q = torch.randn(1, 4, 70, 16, requires_grad=True)
k, v = (torch.randn(1, 2, 70, 16, requires_grad=True) for _ in range(2))
logit = torch.randn(4, requires_grad=True)
more = {"logit": logit} if len(sys.argv) > 3 else {}
layer = kernel.layers.Attention()
out, lse = layer(q, k, v, return_lse=True, **more)
loss = out.square().sum() + lse.sum()
sources = (q, k, v, *more.values())
found = [out, lse, *torch.autograd.grad(loss, sources)]
with torch.no_grad():
    found.append(kernel.attention(q, k, v, **more))
torch.save([x.detach() for x in (*sources, *found)], sys.argv[2])
"""

SINKS = """attention sinks {
    heads 4 kv 2
    input logit[h] : float
    mask causal
    sink logit[h]
}"""

SCORED = """attention biased {
    heads 4
    input slope[h] : float
    mask causal
    score s + slope[h]
}"""


CHOSEN = """attention chosen {
    heads 2
    let columns = top(16, sum(softmax(scores where causal) by k))
    mask causal & (k in columns | window(8))
}"""


def written(files: Mapping[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def imported(folder: Path) -> ModuleType:
    """In this process."""
    told = json.loads((folder / "metadata.json").read_text())
    spec = importlib.util.spec_from_file_location(told["id"], folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[told["id"]] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["causal", "sinks"])
def test_a_program_with_gradients(name: str, tmp_path: Path) -> None:
    """In a new process, in Triton's interpreter, far from patternc."""
    if name == "sinks":
        kernel = driver.compile_source(Source("sinks.pat", SINKS))
    else:
        kernel = kernel_of(name)
    folder = written(hub_of_kernel(kernel), tmp_path / "hub") / "build" / "torch-cuda"
    result, more = tmp_path / "result", ["sinks"] if name == "sinks" else []
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", LOADING + CALLING, str(folder), str(result), *more]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    found = torch.load(result, weights_only=True)
    count = 3 + len(more)
    leaves = [x.double().requires_grad_() for x in found[:count]]
    q, k, v = leaves[:3]
    k, v = (x.repeat_interleave(2, dim=1) for x in (k, v))
    logits = (q @ k.mT) / 4
    hidden = torch.ones(70, 70, dtype=torch.bool).triu(1)
    logits = logits.masked_fill(hidden, -torch.inf)
    if more:
        sink = leaves[3][None, :, None, None].expand(1, 4, 70, 1)
        lse = torch.cat([logits, sink], -1).logsumexp(-1)
    else:
        lse = logits.logsumexp(-1)
    out = (logits - lse[..., None]).exp() @ v
    loss = out.square().sum() + lse.sum()
    expected = [out, lse, *torch.autograd.grad(loss, leaves), out]
    for own, wanted in zip(found[count:], expected, strict=True):
        torch.testing.assert_close(own.double(), wanted, atol=1e-4, rtol=1e-4)


def test_inputs_of_scores_have_no_gradient_there(tmp_path: Path) -> None:
    kernel = driver.compile_source(Source("biased.pat", SCORED))
    folder = written(hub_of_kernel(kernel), tmp_path)
    module = imported(folder / "build" / "torch-cuda")
    q = torch.zeros(1, 4, 3, 16)
    slope = torch.zeros(4, requires_grad=True)
    with pytest.raises(ValueError, match="biased: `slope`: its gradient is not served"):
        module.attention(q, q, q, slope=slope)


def test_selections_are_refused_with_the_place() -> None:
    kernel = driver.compile_source(Source("chosen.pat", CHOSEN))
    with pytest.raises(PatternError, match="no selections yet") as caught:
        hub_of_kernel(kernel)
    (found,) = caught.value.diagnostics
    assert found.span.text.startswith("top(16")


def test_a_package(tmp_path: Path) -> None:
    package, content = quick_package("duo", TRAINED), quick_bytes("duo", TRAINED)
    files = hub_of_package(package, content)
    assert {x.split("/")[1] for x in files if "/" in x} == {"torch-cuda"}
    assert files["build/torch-cuda/attention.patk"] == content
    folder = written(files, tmp_path) / "build" / "torch-cuda"
    module = imported(folder)
    assert module.layers.Attention.has_backward is True
    assert module.calls._loaded.name == "duo"
    q = torch.zeros(1, 3, 5, 64, dtype=torch.float16)
    command = [sys.executable, "-c", LOADING, str(folder)]
    subprocess.run(command, check=True, cwd=tmp_path)
    errors = ValueError, module.runtime.PackageError
    with pytest.raises(errors, match="driver of a GPU|expected"):
        module.attention(q, q, q)


@pytest.mark.parametrize("kind", ["program", "package"])
def test_what_the_library_asks_of_a_folder(kind: str) -> None:
    if kind == "program":
        files = hub_of_kernel(kernel_of("duo"))
    else:
        files = hub_of_package(quick_package("duo"), quick_bytes("duo"))
    again = hub_of_kernel(kernel_of("duo")) if kind == "program" else files
    assert dict(files) == dict(again)
    told = [json.loads(y) for x, y in files.items() if x.endswith("metadata.json")]
    assert len({x["id"] for x in told}) == len(told)
    assert all(x["id"].isidentifier() for x in told)
    for name, content in files.items():
        if not name.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.Import):
                assert {x.name.split(".")[0] for x in node.names} <= ALLOWED, name
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert str(node.module).split(".")[0] in ALLOWED, name


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pat, patk, out = tmp_path / "duo.pat", tmp_path / "duo.patk", tmp_path / "out"
    pat.write_text(kernel_of("duo").attention.span.source.text)
    patk.write_bytes(quick_bytes("duo", TRAINED))
    base = ["--format", "hf-kernel", "-o"]
    assert main(["export", str(pat), *base, str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert (out / "build" / "torch-rocm" / "generated.py").exists()
    assert main(["export", str(patk), *base, str(tmp_path / "packed")]) == 0
    assert (tmp_path / "packed/build/torch-cuda/attention.patk").exists()
    c = ["--format", "c", "-o", str(tmp_path / "c")]
    assert main(["export", str(patk), *c]) == 0
    assert "is_visible" in (tmp_path / "c/sample.c").read_text()
    for wrong in (
        ["export", str(pat), *c],
        ["export", str(patk), *c, "--entry", "duo"],
        ["export", str(out / "README.md"), *c],
    ):
        with pytest.raises(SystemExit) as caught:
            main(wrong)
        assert caught.value.code == 2

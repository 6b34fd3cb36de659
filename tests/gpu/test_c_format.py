"""The C files on a CUDA device: the sample says that all is right, and its bits are the
runtime's, forward and backward.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from typing import Any

import pytest
import torch
from torch import Tensor

from patternc import driver
from patternc.backends.c.emit import emit_c
from patternc.backends.triton.build import Wanted, build_package
from patternc.runtime.attention import PackagedAttention
from patternc.runtime.package import package_of
from patternc.source import Source
from tests.backends.c.libraries import (
    WORDS,
    GradientsStruct,
    call_struct,
    compiled,
    struct_of,
)
from tests.programs import EXAMPLES

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None,
    reason="no C compiler here",
)

SLIDING = """layout clip = text[226] + video[f = 5, y = 12, x = 16]
attention sliding {
    heads 8
    layout clip
    mask  q in text | k in text
        | (abs(q.f - k.f) <= 1 & abs(q.y - k.y) <= 3 & abs(q.x - k.x) <= 3)
    order video by tile(f = 2, y = 4, x = 8)
}
"""

PROGRAMS = {
    "causal": "attention causal_gqa { heads 8 kv 2 mask causal }",
    "duo": EXAMPLES["duo"],
    "phi3_small": EXAMPLES["phi3_small"],
    "sliding": SLIDING,
}


def target() -> str:
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


@pytest.fixture(scope="module", params=PROGRAMS)
def made(request: pytest.FixtureRequest, tmp_path_factory: Any) -> tuple[Any, ...]:
    """A program's package in the runtime, and the folder of its C files."""
    source = Source(f"{request.param}.pat", PROGRAMS[request.param])
    kernel, folder = driver.compile_source(source), tmp_path_factory.mktemp("c")
    wanted = Wanted((target(),), ("bf16",), (128,), backward=True)
    content = build_package(kernel, wanted, processes=os.cpu_count() or 1)
    package = package_of(content)
    for name, text in emit_c(package, kernel.attention).items():
        (folder / name).write_text(text)
    return PackagedAttention(package), folder


def test_the_sample(made: tuple[Any, ...]) -> None:
    attention, folder = made
    facts = attention.manifest.facts
    sources = [str(folder / "sample.c"), str(folder / f"{facts.name}.c")]
    compiled(sources, folder / "sample", "-O2")
    numbers = folder / "numbers"
    done = subprocess.run(
        [folder / "sample", numbers], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "right" in done.stdout
    rows, content, parts, start = facts.layout_size or 300, numbers.read_bytes(), [], 0
    for heads in (facts.heads, facts.kv_heads, facts.kv_heads, facts.heads):
        size = 2 * heads * rows * 128
        own = torch.frombuffer(
            bytearray(content[start : start + size]), dtype=torch.int16
        )
        parts.append(own.view(torch.bfloat16).view(1, heads, rows, 128))
        start += size
    lse = torch.frombuffer(bytearray(content[start:]), dtype=torch.float32)
    q, k, v = (x.cuda() for x in parts[:3])
    out, own_lse = attention(q, k, v, return_lse=True)
    assert torch.equal(out.cpu(), parts[3])
    assert torch.equal(own_lse.cpu().flatten(), lse)


def sizes_of(attention: PackagedAttention) -> list[tuple[int, int, int]]:
    """Batch, queries and keys: long, ragged, one query; of a layout its own."""
    size = attention.manifest.facts.layout_size
    if size is not None:
        return [(1, size, size), (2, size, size)]
    return [(2, 3000, 3000), (1, 333, 777), (2, 1, 5000), (1, 300, 9000)]


def test_the_bits_of_the_runtime(made: tuple[Any, ...]) -> None:
    attention, folder = made
    facts = attention.manifest.facts
    path = folder / "lib.so"
    compiled([str(folder / f"{facts.name}.c")], path, "-shared", "-fPIC", "-O2")
    library = ctypes.CDLL(str(path))
    library_call: Any = call_struct(facts.params)
    torch.zeros(1, device="cuda")

    def function(name: str) -> Any:
        return getattr(library, f"{facts.name}_{name}")

    function("destroy").argtypes = [ctypes.c_void_p]
    handle = ctypes.c_void_p()
    assert function("create")(ctypes.byref(handle), 0, None) == 0

    def run(name: str, call: Any, *more: Any) -> None:
        ask = f"{name}_workspace" if name == "backward" else "workspace"
        size = ctypes.c_size_t()
        assert function(ask)(handle, ctypes.byref(call), ctypes.byref(size)) == 0
        memory = torch.empty(size.value + 16, dtype=torch.int8, device="cuda")
        call.workspace, call.workspace_bytes = memory.data_ptr(), size.value
        assert function(name)(handle, ctypes.byref(call), *more) == 0
        torch.cuda.synchronize()

    torch.manual_seed(7)
    for batch, n_q, n_k in sizes_of(attention):
        kind: Any = {"dtype": torch.bfloat16, "device": "cuda"}
        q = torch.randn(batch, facts.heads, n_q, 128, **kind)
        # Keys and values side by side: [batch, tokens, heads, 128] as models have them.
        k = torch.randn(batch, n_k, facts.kv_heads, 128, **kind).transpose(1, 2)
        v, d_out = torch.randn_like(k), torch.randn_like(q)
        call = library_call()
        function("call_init")(ctypes.byref(call))
        call.dtype, call.batch, call.head_dim = WORDS[q.dtype], batch, 128
        call.n_q, call.n_k = n_q, n_k
        call.q, call.k, call.v = struct_of(q), struct_of(k), struct_of(v)
        call.stream = torch.cuda.current_stream().cuda_stream
        out, lse = torch.empty_like(q), torch.empty(q.shape[:3], device="cuda")
        call.out, call.lse = out.data_ptr(), lse.data_ptr()
        run("forward", call)
        expected, expected_lse = attention.attend(q, k, v)
        assert torch.equal(out, expected) and torch.equal(lse, expected_lse)
        found = _gradients(run, call, (q, k, v), out, lse, d_out)
        wanted = attention.gradients(q, k, v, out, lse, d_out, None)[:3]
        assert all(map(torch.equal, found, wanted))
    function("destroy")(handle)


def _gradients(
    run: Any,
    call: Any,
    sources: tuple[Tensor, ...],
    out: Tensor,
    lse: Tensor,
    d: Tensor,
) -> list[Tensor]:
    found = [torch.empty(x.shape, dtype=x.dtype, device="cuda") for x in sources]
    pointers = [x.data_ptr() for x in found]
    own = GradientsStruct(out.data_ptr(), lse.data_ptr(), struct_of(d), None, *pointers)
    run("backward", call, ctypes.byref(own))
    return found

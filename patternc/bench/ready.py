"""What comes before the kernel: the time and the memory of getting ready to run.

In: a row and a shape on a CUDA device. Out: seconds from source text to the first
result, cold and warm, each in a process of its own; launches and bytes of a call beside
its kernel; the same of FlexAttention's block mask. Not its job: kernels' own times
(`bench.measure`).
"""

from __future__ import annotations

import os
import site
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.attention.flex_attention import create_block_mask
from torch.profiler import ProfilerActivity, profile
from triton.testing import do_bench

import patternc
from patternc.bench.measure import draw, sizes_of
from patternc.bench.peers import Function, Site
from patternc.bench.record import OURS, Ready, Shape
from patternc.bench.suite import Row, row_named

_CALLS = 5

_KERNELS = ("forward_kernel", "ordered_kernel", "hopper_kernel")


def get_ready(row: Row, shape: Shape) -> Ready:
    """Everything about one row; what fails is a note."""
    found = Ready(row.name, shape)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = replace(found, cold_s=_process(row, shape, Path(folder)))
            found = replace(found, warm_s=_process(row, shape, Path(folder)))
        place = Site.of(row, sizes_of(shape), torch.device("cuda"))
        found = _one_call(found, place)
        return _mask(found, place)
    # One row's failure is a finding, not the end of the run.
    except Exception as error:  # noqa: BLE001
        note = " ".join(f"{type(error).__name__}: {error}".split())
        return replace(found, note=note[:240])


def first_result(row: str, *sizes: int) -> None:
    """Print the seconds from source text to the first result: run by `_process`.

    `sizes` are the numbers of a `Shape`. Torch and CUDA are up first.
    """
    batch, heads, kv_heads, length, head_dim = sizes
    shape = Shape(batch, heads, kv_heads, length, head_dim)
    device = torch.device("cuda")
    q, k, v = draw(shape, device)
    torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.no_grad():
        Site.of(row_named(row), sizes_of(shape), device).prepare(OURS)(q, k, v)
    torch.cuda.synchronize()
    print(time.perf_counter() - start)


def _process(row: Row, shape: Shape, folder: Path) -> float:
    """The seconds to the first result in a new process, its caches in `folder`."""
    sizes = [shape.batch, shape.heads, shape.kv_heads, shape.length, shape.head_dim]
    call = f"first_result({', '.join(map(repr, [row.name, *sizes]))})"
    root = str(Path(patternc.__file__).parents[1])
    environment = {
        **os.environ,
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "HOME": str(folder),  # patternc's own store is in there
        "PYTHONUSERBASE": site.getuserbase(),  # and packages may be in the old one
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", f"from patternc.bench.ready import *; {call}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rsplit("\n", 1)[-1])
    return float(done.stdout)


def _one_call(found: Ready, place: Site) -> Ready:
    """Launches, bytes and times of a call that is not the first."""
    q, k, v = draw(found.shape, place.device)
    attend = place.prepare(OURS)
    with torch.no_grad():
        output = attend(q, k, v)
        results = output.nbytes + 4 * output[..., 0].numel()  # and the LSE, float32
        del output
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        attend(q, k, v)
        held = torch.cuda.max_memory_allocated() - before - results
        call_ms = float(
            do_bench(lambda: attend(q, k, v), warmup=25, rep=150, return_mode="median")
        )
        kernel_ms, launches = _profiled(attend, q, k, v)
    return replace(
        found,
        launches=launches,
        bytes=max(0, held),
        call_ms=call_ms,
        kernel_ms=kernel_ms,
    )


def _profiled(
    attend: Function, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[float, int]:
    """Milliseconds of our kernel in a call, and how many other launches there are."""
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as log:
        for _ in range(_CALLS):
            attend(q, k, v)
        torch.cuda.synchronize()
    device = [item for item in log.key_averages() if item.self_device_time_total > 0]
    ours = [item for item in device if item.key.startswith(_KERNELS)]
    kernel = sum(item.self_device_time_total for item in ours) / 1e3 / _CALLS
    others = sum(item.count for item in device) - sum(item.count for item in ours)
    return kernel, others // _CALLS


def _mask(found: Ready, place: Site) -> Ready:
    """FlexAttention's block mask, made eagerly: the second time, and its memory."""
    flex, n = place.pattern.flex, place.sizes.length
    if flex is None:
        return found
    heads = place.sizes.heads if place.row.per_head else None

    def build() -> object:
        return create_block_mask(flex, None, heads, n, n, device="cuda")

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    try:
        build()
    except torch.OutOfMemoryError:
        return replace(found, note="FlexAttention's block mask: out of memory")
    peak = torch.cuda.max_memory_allocated() - before
    ms = float(do_bench(build, warmup=10, rep=60, return_mode="median"))
    return replace(found, mask_ms=ms, mask_bytes=peak)

"""What Triton does once in a process, while a module is written and imported.

In: nothing. Out: threads that do it, or none. Not its job: kernels (`compile.py.tmpl`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
import triton
from triton.runtime.cache import triton_key
from triton.runtime.driver import driver


@contextlib.contextmanager
def getting_ready() -> Iterator[None]:
    """Ask of Triton what its first kernel asks for, until the end of the block.

    That is a hash of Triton itself (a quarter of a second) and its driver, which a C
    compiler builds where it is not in Triton's cache. Nothing is done before PyTorch
    has started CUDA. What fails here fails again, and is raised, at the first launch.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        yield
        return
    with ThreadPoolExecutor(2) as pool:
        pool.submit(triton_key)
        pool.submit(start_driver)
        yield


def start_driver() -> None:
    """Make Triton's driver, and have it look for its assembler."""
    target = driver.active.get_current_target()
    triton.compiler.make_backend(target).hash()

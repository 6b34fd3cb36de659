"""What Triton does once in a process, beside what patternc does before a kernel.

In: nothing. Out: threads that do it. Not its job: kernels (`compile.py.tmpl`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch
import triton
from triton.runtime.cache import triton_key
from triton.runtime.driver import driver


@functools.cache
def get_ready() -> tuple[Future[Any], ...]:
    """Begin what Triton's first kernel asks for, in other threads, once.

    That is a hash of Triton itself (a quarter to half of a second) and its driver, which
    a C compiler builds where it is not in Triton's cache. What fails here fails again,
    and is raised, at the first launch.
    """
    pool = ThreadPoolExecutor(2)
    begun = (pool.submit(triton_key), pool.submit(start_driver))
    pool.shutdown(wait=False)
    return begun


@contextlib.contextmanager
def getting_ready() -> Iterator[None]:
    """`get_ready` that is over at the end of the block, if PyTorch has started CUDA."""
    begun: tuple[Future[Any], ...] = ()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        begun = get_ready()
    yield
    wait(begun)


def start_driver() -> None:
    """Make Triton's driver, and have it look for its assembler."""
    target = driver.active.get_current_target()
    triton.compiler.make_backend(target).hash()

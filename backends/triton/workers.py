"""Kernels compiled side by side by several processes.

In: the jobs of some generated modules, and the function that does one. Out: what became
of each. Not its job: what a job is and how it is done (`machine_code`).

Jobs that differ by their target alone are done by one process, one after the other, so
that they share what no target has a part in (`front`).
"""

from __future__ import annotations

import gc
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from patternc.backends.triton.machine_code import Compiled, Job

Compile = Callable[[Path, Job, Path], Compiled]

_OBJECTS = 100_000
"""New objects between two looks for garbage: a compiler makes many, and few are circles."""


@dataclass(frozen=True, slots=True)
class Task:
    """Jobs of one module that are done one after the other."""

    path: Path
    jobs: tuple[Job, ...]


def compile_all(
    work: Mapping[Path, Sequence[Job]],
    compile_: Compile,
    processes: int,
    told: Callable[[int, int], None],
) -> dict[Path, list[Compiled]]:
    """The jobs of each module's file, in their order; the longest ones are begun first.

    `processes` 0: this one does them. `told` hears how many are done, and of how many.
    """
    tasks = sorted(_tasks(work), key=_weight, reverse=True)
    count = sum(len(task.jobs) for task in tasks)
    found: dict[tuple[Path, Job], Compiled] = {}
    told(0, count)
    with tempfile.TemporaryDirectory() as folder:
        caches = {path: Path(folder, str(at)) for at, path in enumerate(work)}
        for cache in caches.values():
            cache.mkdir()
        for task, made in _done(tasks, compile_, caches, processes):
            found |= {(task.path, x): y for x, y in zip(task.jobs, made, strict=True)}
            told(len(found), count)
    return {path: [found[path, job] for job in jobs] for path, jobs in work.items()}


def _done(
    tasks: Sequence[Task],
    compile_: Compile,
    caches: Mapping[Path, Path],
    processes: int,
) -> Iterator[tuple[Task, list[Compiled]]]:
    """The tasks as they are done."""
    if processes == 0:
        for task in tasks:
            yield task, _compile_task(task, compile_, caches[task.path])
        return
    with _pool(processes) as pool:
        waiting = {
            pool.submit(_compile_task, task, compile_, caches[task.path]): task
            for task in tasks
        }
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def _compile_task(task: Task, compile_: Compile, cache: Path) -> list[Compiled]:
    return [compile_(task.path, job, cache) for job in task.jobs]


def _tasks(work: Mapping[Path, Sequence[Job]]) -> list[Task]:
    found = []
    for path, jobs in work.items():
        alike: dict[tuple[object, ...], list[Job]] = {}
        for job in jobs:
            own = (job.kernel, job.dtype, job.types, job.constants, job.aligned)
            alike.setdefault(own, []).append(job)
        found += [Task(path, tuple(some)) for some in alike.values()]
    return found


def _weight(task: Task) -> tuple[float, str]:
    """About how long a task takes beside others."""
    return sum(map(_job_weight, task.jobs)), task.jobs[0].target


def _job_weight(job: Job) -> float:
    """Most by columns and products in a loop."""
    constants = dict(job.constants)
    columns = constants.get("HEAD_DIM") or constants.get("VALUE_DIM") or 0
    assert isinstance(columns, int)
    times = 3.0 if "hopper" in job.kernel else 1.0
    times *= 1.5 if "key_gradient" in job.kernel else 1.0
    times *= 1.3 if constants.get("EXACT") else 1.0
    return columns * times


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that have imported what is imported here already."""
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, context, _spare_garbage) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _spare_garbage() -> None:
    """What is imported is never garbage: looking through it again takes time."""
    gc.freeze()
    gc.set_threshold(_OBJECTS)

"""One random program, held to what it means at every stage.

In: a `Program`. Out: an `Outcome`; a `Difference` is raised where two answers are not
the same, and whatever the compiler raises but a `PatternError` passes through. Not its
job: many programs (`tests.fuzz.run`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

import numpy as np
import torch

from patternc import backends, check, passes
from patternc.backends.protocol import LoadedAttention
from patternc.backends.reference import ReferenceAttention
from patternc.backends.tiled import TiledAttention
from patternc.diagnostics import PatternError, raise_errors
from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import Attention
from patternc.plan.expand import plan_mask
from patternc.plan.kernel import Kernel, Schedule
from patternc.plan.tiling import plan
from patternc.source import Source
from patternc.syntax.parse import parse
from patternc.verify import verify
from tests.fuzz import meaning
from tests.fuzz.asserts import Decided, compare_asserts
from tests.fuzz.difference import Difference
from tests.fuzz.programs import Program
from tests.fuzz.terms import Bools

HEAD_DIM = 4
SCALE = 0.5
TOLERANCE = 1e-9
"""Of float64 against the same sums in NumPy, in another order."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a program: the codes of a refusal, or what was compared."""

    refused: tuple[str, ...] = ()
    pairs: int = 0
    visible: int = 0
    ran_triton: bool = False
    decided: Decided = field(default_factory=Decided)


@dataclass(frozen=True, slots=True)
class Stages:
    """What is run beside what every program goes through."""

    findings: bool = True  # everything that `patternc check` reports, first
    order: bool = True  # the search for an order of the tokens
    budget: bool = True  # `patternc.verify` of the tiled backend
    triton: bool = False  # the same of the generated kernel, interpreted
    asserts: bool = True


def lowered(program: Program, with_findings: bool = True) -> Attention:
    """The attention of the text. Raises `PatternError`."""
    source = Source("fuzz.pat", program.text)
    file = parse(source)
    if with_findings:
        raise_errors(check.check_file(file))
    return check.lower(file, "it", dict(program.parameters.given))


def compare(program: Program, rng: Random, stages: Stages) -> Outcome:
    """Hold one program to its meaning. Raises `Difference`.

    `rng` draws what is asserted of it.
    """
    try:
        attention = lowered(program, stages.findings)
    except PatternError as error:
        return Outcome(tuple(sorted({found.code for found in error.diagnostics})))
    schedule = program.sizes.schedule
    kernel = plan(_after_passes(attention, schedule, stages.order), schedule)
    masks = [
        [meaning.mask(program, head, element) for head in range(program.heads)]
        for element in range(program.sizes.batch)
    ]
    for element, own in enumerate(masks):
        _compare_masks(program, attention, kernel, element, own)
    _compare_outputs(program, attention, kernel)
    if stages.budget:
        _compare_backend(program, kernel, "tiled", torch.float64)
    ran = stages.triton and _run_triton(program, attention)
    return Outcome(
        pairs=sum(one.size for own in masks for one in own),
        visible=sum(int(one.sum()) for own in masks for one in own),
        ran_triton=ran,
        decided=compare_asserts(program, rng) if stages.asserts else Decided(),
    )


def _after_passes(
    attention: Attention, schedule: Schedule, with_order: bool
) -> Attention:
    if with_order:
        return passes.run(attention, schedule)[-1][1]
    return passes.final_masks(attention)


def _runtime(program: Program, attention: Attention) -> dict[str, int]:
    return {
        item.name: program.parameters.runtime[item.name] for item in attention.params
    }


def _compare_masks(
    program: Program,
    attention: Attention,
    kernel: Kernel,
    element: int,
    masks: list[Bools],
) -> None:
    """The lowered mask, and the one that is rebuilt from the tiles, are the meaning."""
    sizes, params = program.sizes, _runtime(program, attention)
    tables = {
        name: table[element if len(table) > 1 else 0]
        for name, table in program.tables.items()
    }
    call = (sizes.n_q, sizes.n_k, sizes.q_offset, params, tables)
    for head, expected in enumerate(masks):
        found = dense_mask(attention.case_of(head).mask, head, *call)
        _same_mask("the lowered mask", head, found, expected)
        planned = plan_mask(kernel, head, *call)
        _same_mask("the mask of the tiles", head, planned, expected)


def _same_mask(what: str, head: int, found: Bools, expected: Bools) -> None:
    if not np.array_equal(found, expected):
        row, key = np.argwhere(found != expected)[0]
        side = "sees" if found[row, key] else "hides"
        raise Difference(f"{what} of head {head} {side} row {row}, key {key}")


def _compare_outputs(program: Program, attention: Attention, kernel: Kernel) -> None:
    """The reference and the tiled backend in float64 give what NumPy gives."""
    sizes = program.sizes
    numbers = np.random.default_rng(sizes.n_q * 64 + sizes.n_k)
    q, k, v = (
        numbers.standard_normal((sizes.batch, heads, length, HEAD_DIM))
        for heads, length in (
            (program.heads, sizes.n_q),
            (program.kv_heads, sizes.n_k),
            (program.kv_heads, sizes.n_k),
        )
    )
    inputs = {name: torch.from_numpy(table) for name, table in program.tables.items()}
    expected = meaning.attend(program, q, k, v, SCALE)
    runs: dict[str, LoadedAttention] = {
        "reference": ReferenceAttention(attention),
        "tiled": TiledAttention(kernel),
    }
    for name, loaded in runs.items():
        found = loaded(
            *(torch.from_numpy(x) for x in (q, k, v)),
            scale=SCALE,
            q_offset=sizes.q_offset,
            params=_runtime(program, attention),
            return_lse=True,
            inputs=inputs,
        )
        for what, mine, true in zip(("output", "LSE"), found, expected, strict=True):
            if not np.allclose(
                mine.numpy(), true, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True
            ):
                raise Difference(f"{name}: the {what} is not the meaning")


def _compare_backend(
    program: Program, kernel: Kernel, name: str, dtype: torch.dtype
) -> None:
    """A backend is within the budget of `patternc.verify`, on inputs of its own."""
    sizes = program.sizes
    found = verify(
        kernel,
        [name],
        dtypes=[dtype],
        sizes=[(sizes.n_q, sizes.n_k)],
        params=_runtime(program, kernel.attention),
        batch=sizes.batch,
        head_dim=HEAD_DIM if name == "tiled" else 64,
        q_offset=sizes.q_offset if not program.segments else None,
    )
    for result in found:
        if not result.ok:
            raise Difference(f"{result}")


def _run_triton(program: Program, attention: Attention) -> bool:
    """The generated kernel in the interpreter; whether the backend takes the program."""
    schedule = Schedule(16, 16)
    kernel = plan(_after_passes(attention, schedule, True), schedule)
    if backends.get("triton").refuse(kernel) is not None:
        return False
    small = replace(program, sizes=replace(program.sizes, schedule=schedule))
    _compare_backend(small, kernel, "triton", torch.float32)
    return True

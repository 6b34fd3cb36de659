"""What the call of a random program must give, by loops over NumPy arrays.

In: a `Program`. Out: its masks and, for given tensors, its output and log-sum-exp, as
docs/language.md says and without the compiler. Not its job: comparing
(`tests.fuzz.compare`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from tests.fuzz.clauses import Case, Weights
from tests.fuzz.programs import Program
from tests.fuzz.terms import Bools, Floats, Place, Value, known

Body = TypeVar("Body")


def place_of(program: Program, head: int, element: int) -> Place:
    """All pairs of one head and one batch element: `q` is [n_q, 1], `k` [1, n_k]."""
    sizes, parameters = program.sizes, program.parameters
    queries = np.arange(sizes.n_q, dtype=np.int64)[:, None] + sizes.q_offset
    names = {
        "q": known(queries),
        "k": known(np.arange(sizes.n_k, dtype=np.int64)[None, :]),
        "h": known(head),
        "g": known(head // program.group_size),
        "N": known(sizes.n_k),
    }
    integers = {**parameters.static, **parameters.runtime}
    names |= {name: known(value) for name, value in integers.items()}
    tables = {
        name: table[element if len(table) > 1 else 0]
        for name, table in program.tables.items()
    }
    decimals = {name: np.asarray(x) for name, x in parameters.decimals.items()}
    return Place(names, tables, decimals)


def is_skipped(program: Program, place: Place) -> bool:
    """Whether the head of a place computes nothing."""
    return program.skipped is not None and bool(program.skipped.at(place))


def case_at(cases: Sequence[Case[Body]], place: Place) -> Body | None:
    """The body of the case that holds for the head, the layer and the step."""
    for case in cases:
        if case.condition is None or bool(case.condition.at(place)):
            return case.body
    return None


def mask(program: Program, head: int, element: int) -> Bools:
    """The visible pairs [n_q, n_k]."""
    place = place_of(program, head, element)
    shape = (program.sizes.n_q, program.sizes.n_k)
    if is_skipped(program, place):
        return np.zeros(shape, dtype=np.bool_)
    body = case_at(program.masks, place)
    if body is None:
        raise LookupError(f"head {head} has no mask")
    seen = np.broadcast_to(body.at(place), shape)
    query, key = (_is_padding(program, place.names[name], place) for name in "qk")
    itself = place.names["q"].value == place.names["k"].value
    return np.where(query | key, query & itself, seen)


def _is_padding(program: Program, token: Value, place: Place) -> Bools:
    found = np.zeros(token.value.shape, dtype=np.bool_)
    for segment in program.segments:
        if segment.valid:
            inside = token.value - segment.start
            if segment.valid in place.names:
                count = int(place.names[segment.valid].value)
            else:
                count = int(place.tables[segment.valid])
            found |= (inside >= max(count, 0)) & (inside < segment.size)
    return found


def attend(
    program: Program, q: Floats, k: Floats, v: Floats, scale: float
) -> tuple[Floats, Floats]:
    """Output [B, H, n_q, D] and LSE [B, H, n_q], NaN for weights without a sum.

    `q` is [B, H, n_q, D]; `k` and `v` are [B, KV, n_k, D]; all float64.
    """
    output = np.zeros(q.shape)
    lse = np.full(q.shape[:3], -np.inf)
    for element in range(q.shape[0]):
        for head in range(program.heads):
            place = place_of(program, head, element)
            if is_skipped(program, place):
                continue
            group = head // program.group_size
            found = _attend_head(
                program,
                place,
                mask(program, head, element),
                q[element, head] @ k[element, group].T * scale,
                v[element, group],
            )
            output[element, head], lse[element, head] = found
    return output, lse


def _attend_head(
    program: Program, place: Place, visible: Bools, logits: Floats, v: Floats
) -> tuple[Floats, Floats]:
    score = case_at(program.scores, place)
    if score is not None:
        logits = score.at(replace(place, given={**place.given, "s": logits}))
        logits = np.broadcast_to(logits, visible.shape)
    weights = case_at(program.weights, place) or Weights("softmax")
    if weights.kind == "softmax":
        output, lse = _softmax(program, place, visible, logits, v)
    else:
        if weights.kind == "relu2":
            factors = np.maximum(weights.argument * logits, 0.0) ** 2
        else:
            factors = np.exp(-np.logaddexp(0.0, -(logits + weights.argument)))
        output = np.where(visible, factors, 0.0) @ v
        lse = np.full(len(visible), np.nan)
    changed = case_at(program.outputs, place)
    if changed is None:
        return output, lse
    given = {**place.given, "o": output}
    first, rows = program.sizes.q_offset, len(visible)
    if first >= 0 and first + rows <= len(v):
        given["v"] = v[first : first + rows]
    rows_only = replace(place, given=given)
    return np.broadcast_to(changed.at(rows_only), output.shape), lse


def _softmax(
    program: Program, place: Place, visible: Bools, logits: Floats, v: Floats
) -> tuple[Floats, Floats]:
    sink = case_at(program.sinks, place)
    extra = -np.inf if sink is None else float(sink.at(place))
    hidden = np.where(visible, logits, -np.inf)
    top = np.maximum(hidden.max(axis=1), extra)
    shift = np.where(np.isfinite(top), top, 0.0)
    weights = np.exp(hidden - shift[:, None])
    total = weights.sum(axis=1) + np.exp(extra - shift)
    with np.errstate(divide="ignore"):
        lse = np.log(total) + shift
    return weights @ v / np.where(total == 0, 1.0, total)[:, None], lse

"""`sdpa`: attention by a pattern, called as PyTorch's own.

In: tensors and a pattern: a file, its text, one expression, or a compiled attention.
Out: what the attention gives. Not its job: the compiler (`patternc.driver`), a call's
checks (`patternc.attention`). What was compiled for a text is found again.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from patternc import driver
from patternc.attention import Attention
from patternc.source import Source
from patternc.syntax import ast
from patternc.syntax.load import read_source
from patternc.syntax.parse import parse

Pattern = Attention | str | os.PathLike[str]

KEPT = 256
"""Compiled texts that are kept, the ones used last."""

_ITEM = re.compile(r"(?:\s|#[^\n]*(?:\n|$))*(?:pattern|def|layout|attention)\b")


def sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    scale: float | None = None,
    return_lse: bool = False,
    *,
    q_offset: int | None = None,
    **given: float | Tensor,
) -> Tensor | tuple[Tensor, Tensor]:
    """The output [B, H, n_q, D_v], and with `return_lse` the LSE [B, H, n_q] too.

    `q` is [B, H, n_q, D], `k` is [B, KV, n_k, D], `v` is [B, KV, n_k, D_v]. `pattern`
    is an expression (`"causal & window(256)"`), the text of a `.pat` file, a path (any
    `os.PathLike`, or a string that ends in ".pat"), or a compiled attention. Head
    counts are those of the tensors for an expression, and for an attention whose
    `heads` and `kv` name parameters (`attention a(H, G) { heads H kv G ... }`); else
    they must agree. `given` are its inputs and run-time parameters, and numbers for
    its static ones. Unlike PyTorch's, the last query stands at the last key:
    `q_offset=0` puts the first at the first.

    Raises `PatternError` for what is wrong with the program, else as `Attention`.
    """
    compiled, rest = _compiled(pattern, given, q.shape[-3], k.shape[-3])
    return compiled(  # type: ignore[call-overload, no-any-return]
        q, k, v, scale=scale, q_offset=q_offset, return_lse=return_lse, **rest
    )


def compile_pattern(
    pattern: Pattern,
    heads: int | None = None,
    kv_heads: int | None = None,
    **params: float,
) -> Attention:
    """The attention of a pattern, as `sdpa` compiles it for these head counts.

    `kv_heads` is `heads` unless given; neither is needed where the program says how
    many. `params` are values of static parameters. Raises `PatternError` for what is
    wrong with the program, `TypeError` for a parameter that it does not bind.
    """
    found, rest = _compiled(pattern, params, heads, kv_heads or heads)
    for name in rest:
        raise TypeError(f"{found.name}: `{name}` is not a static parameter")
    return found


def _compiled(
    pattern: Pattern,
    given: Mapping[str, object],
    heads: int | None,
    kv_heads: int | None,
) -> tuple[Attention, dict[str, int | Tensor]]:
    """The attention, and what is left of `given` for the call."""
    if isinstance(pattern, Attention):
        return pattern, dict(given)  # type: ignore[arg-type]
    if torch.compiler.is_dynamo_compiling():
        raise TypeError(
            "sdpa: inside torch.compile, `pattern` must be compiled already: pass a"
            " patternc.Attention, or use patternc.nn.Attention"
        )
    source = _source(pattern)
    text, name = source.text, source.name
    static = _static(text, name)
    known = tuple((name, x) for name, x in given.items() if name in static)
    attention = _compile(name, text, heads, kv_heads, known)
    rest = {name: x for name, x in given.items() if name not in static}
    return attention, rest  # type: ignore[return-value]


def _source(pattern: str | os.PathLike[str]) -> Source:
    if not isinstance(pattern, str):
        return read_source(pattern)
    if pattern.endswith(".pat") and "\n" not in pattern:
        return read_source(pattern)
    return Source("<pattern>", pattern)


@functools.lru_cache(maxsize=KEPT)
def _static(text: str, name: str) -> tuple[str, ...]:
    """The parameters of a file's attentions that are bound when it is compiled."""
    if not _ITEM.match(text):
        return ()
    return tuple(
        parameter.name.text
        for item in parse(Source(name, text)).items
        if isinstance(item, ast.Attention)
        for parameter in item.parameters
        if not parameter.runtime
    )


@functools.lru_cache(maxsize=KEPT)
def _compile(
    name: str,
    text: str,
    heads: int | None,
    kv_heads: int | None,
    known: tuple[tuple[str, int | float], ...],
) -> Attention:
    if not _ITEM.match(text):
        if heads is None:
            raise ValueError(
                "an expression needs to be told how many `heads` there are"
            )
        counts = f"heads {heads} kv {kv_heads}"
        text = f"attention expression {{ {counts} mask {text}\n}}"
    source = Source(name, text)
    counted = _counted(source, heads, kv_heads)
    return Attention(driver.trace_source(source, None, {**counted, **dict(known)}))


def _counted(source: Source, heads: int | None, kv_heads: int | None) -> dict[str, int]:
    """Values for the parameters that a `heads` clause names.

    For a file with one attention; another is refused later, with what it has.
    """
    items = [x for x in parse(source).items if isinstance(x, ast.Attention)]
    clauses = [x for item in items for x in item.clauses if isinstance(x, ast.Heads)]
    if len(items) != 1 or len(clauses) != 1:
        return {}
    static = {p.name.text for p in items[0].parameters if not p.runtime}
    pairs = ((clauses[0].count, heads), (clauses[0].kv_count, kv_heads))
    return {
        expr.text: count
        for expr, count in pairs
        if count is not None and isinstance(expr, ast.Name) and expr.text in static
    }

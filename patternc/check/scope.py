"""What a name means: the file's declarations, then the standard patterns.

In: a parsed file. Out: declarations by name, and words close to a misspelt one. Not
its job: parameters and indices (`check.types`), which are local to a body.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from patternc import stdlib_patterns
from patternc.ir.nodes import STEPS
from patternc.limits import SUGGESTIONS
from patternc.source import Source
from patternc.syntax import ast
from patternc.syntax.parse import parse

INDICES = frozenset("qkhgN")
"""The indices of this version: query, key, query head, key/value head, length."""

GIVEN = {"s": "score", "o": "output", "v": "output"}
"""What a kernel has at hand in one clause only, and that clause."""

TENSORS = frozenset({"Q", "K", "V", "scale"})
"""The tensors of a call and the factor of the logits, for `let`."""

FLOAT_FUNCTIONS = frozenset(
    ["exp", "log", "tanh", "sigmoid", "sqrt", "relu", "softcap", "where"]
)
"""Functions of decimal numbers, for `score`, `sink` and `output`."""

BUILT_IN = FLOAT_FUNCTIONS | frozenset(
    ["abs", "min", "max", "clamp", "bitlen", "range", "full", "empty"]
)
"""Names of the language's own functions and patterns."""

CALL_NAMES = frozenset(
    ["self", "q", "k", "v", "scale", "q_offset", "return_lse", "check"]
    + ["n_q", "n_k", "plan", "cu_seqlens", "lengths"]
)
"""Keyword arguments of a call: no run-time parameter and no input is called so."""

LOAD_NAMES = frozenset(["path", "entry", "backend", "schedule"])
"""Keyword arguments of `patternc.load`: no parameter of an attention is called so."""

RESERVED = INDICES | {*STEPS} | GIVEN.keys() | {"b"} | TENSORS | BUILT_IN
RESERVED_WORDS = frozenset(
    ["in", "mask", "union", "every", "retention", "density", "within"]
)
"""What no declaration may be called."""

Callable = ast.Pattern | ast.Function


@dataclass(frozen=True, eq=False)
class Scope:
    """The patterns, functions and layouts that a body can name.

    A standard pattern never sees the declarations of the file that uses it, so hiding
    one changes nothing in the others: its scope is its own file.
    """

    declared: Mapping[str, Callable] = field(default_factory=dict)
    layouts: Mapping[str, ast.Layout] = field(default_factory=dict)

    def find(self, name: str) -> tuple[Callable, Scope] | None:
        """What `name` declares and the scope of its body, or None."""
        if name in self.declared:
            return self.declared[name], self
        if name in stdlib_patterns.names():
            home = _standard_scope(name)
            return home.declared[name], home
        return None

    def names(self) -> tuple[str, ...]:
        """Every name that `find` finds."""
        return (*self.declared, *stdlib_patterns.names())


def scope_of(file: ast.File) -> Scope:
    """The scope of a file's bodies. Of two declarations of a name the first counts."""
    declared: dict[str, Callable] = {}
    layouts: dict[str, ast.Layout] = {}
    for item in file.items:
        if isinstance(item, ast.Pattern | ast.Function):
            declared.setdefault(item.name.text, item)
        elif isinstance(item, ast.Layout):
            layouts.setdefault(item.name.text, item)
    return Scope(declared, layouts)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A help sentence with the closest known name, or nothing."""
    names = sorted(set(known))
    if len(names) > SUGGESTIONS:
        return ""
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean `{close[0]}`?" if close else ""


@cache
def _standard_scope(name: str) -> Scope:
    """The scope of a standard pattern: what its own file declares."""
    text = stdlib_patterns.text(name)
    scope = scope_of(parse(Source(f"<standard>/{name}.pat", text)))
    if not isinstance(scope.declared.get(name), ast.Pattern):
        raise TypeError(f"{name}.pat declares no pattern `{name}`")
    return scope

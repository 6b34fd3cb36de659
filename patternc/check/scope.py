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
from patternc.limits import SUGGESTIONS
from patternc.source import Source
from patternc.syntax import ast
from patternc.syntax.parse import parse

INDICES = frozenset("qkhgN")
"""The indices of this version: query, key, query head, key/value head, length."""

LATER_NAMES = frozenset(["b", "Q", "K", "V", "s", "o", "v", "layer", "step", "scale"])
"""Reserved names whose meaning comes with a later version."""

BUILT_IN = frozenset(["abs", "min", "max", "clamp", "range", "full", "empty"])
"""Names of the language's own functions and patterns."""

RESERVED = INDICES | LATER_NAMES | BUILT_IN
RESERVED_WORDS = frozenset(
    ["in", "mask", "union", "every", "retention", "density", "within"]
)
"""What no declaration may be called."""

Callable = ast.Pattern | ast.Function


@dataclass(frozen=True, eq=False)
class Scope:
    """The patterns and functions that a body can name.

    `standard` marks the scope of the standard patterns: they never see a file's
    declarations, so hiding one of them changes nothing in the others.
    """

    declared: Mapping[str, Callable] = field(default_factory=dict)
    standard: bool = False

    def find(self, name: str) -> tuple[Callable, Scope] | None:
        """What `name` declares and the scope of its body, or None."""
        if name in self.declared:
            return self.declared[name], self
        if name in stdlib_patterns.names():
            return _standard_pattern(name), STANDARD
        return None

    def names(self) -> tuple[str, ...]:
        """Every name that `find` finds."""
        return (*self.declared, *stdlib_patterns.names())


STANDARD = Scope(standard=True)


def scope_of(file: ast.File) -> Scope:
    """The scope of a file's bodies. Of two declarations of a name the first counts."""
    declared: dict[str, Callable] = {}
    for item in file.items:
        if isinstance(item, ast.Pattern | ast.Function):
            declared.setdefault(item.name.text, item)
    return Scope(declared)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A help sentence with the closest known name, or nothing."""
    names = sorted(set(known))
    if len(names) > SUGGESTIONS:
        return ""
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean `{close[0]}`?" if close else ""


@cache
def _standard_pattern(name: str) -> ast.Pattern:
    text = stdlib_patterns.text(name)
    file = parse(Source(f"<standard>/{name}.pat", text))
    for item in file.items:
        if isinstance(item, ast.Pattern) and item.name.text == name:
            return item
    raise LookupError(f"{name}.pat declares no pattern `{name}`")

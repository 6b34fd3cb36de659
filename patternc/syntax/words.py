"""The words of the language, and what terminals are called in messages.

In: nothing. Out: tables. Not its job: which word can stand where (the grammar).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

KEYWORDS = {
    word: word.upper()
    for word in [
        "pattern",
        "def",
        "layout",
        "attention",
        "heads",
        "kv",
        "input",
        "mask",
        "order",
        "by",
        "score",
        "weights",
        "sink",
        "output",
        "skip",
        "schedule",
        "for",
        "otherwise",
        "assert",
        "within",
        "in",
        "runtime",
        "int",
        "bool",
        "float",
        "sorted",
        "has",
        "at",
        "over",
        "let",
        "where",
        "per",
        "always",
        "min",
        "max",
        "crossing",
        "if",
        "else",
        "dense",
        "when",
        "cheaper",
    ]
}
"""Words that are special where the grammar lets them stand."""

OPTION_WORDS = frozenset(["always", "min", "max", "over", "crossing"])
"""Words that start an option of a selection, if an operand follows them."""

ASSERT_WORDS = {
    "mask": "THE_MASK",
    "union": "UNION",
    "every": "EVERY",
    "retention": "RETENTION",
    "density": "DENSITY",
}
"""Words that are special inside an `assert` only."""

NEVER_NAMES = frozenset(
    ["pattern", "def", "attention", "heads", "mask", "assert", "for", "otherwise"]
)
"""Words that start something: where a name is expected, they are a mistake."""

CLAUSES = frozenset(
    [
        "HEADS",
        "LAYOUT",
        "INPUT",
        "LET",
        "MASK",
        "ORDER",
        "SCORE",
        "WEIGHTS",
        "SINK",
        "OUTPUT",
        "SKIP",
        "SCHEDULE",
        "ASSERT",
    ]
)
"""Terminals that start a clause."""

_SIGNS = {
    "LPAR": "(",
    "RPAR": ")",
    "LBRACE": "{",
    "RBRACE": "}",
    "LSQUARE": "[",
    "RSQUARE": "]",
    "COMMA": ",",
    "COLON": ":",
    "EQUALS": "=",
    "MINUS": "-",
}
_OPTIONS = frozenset(word.upper() for word in OPTION_WORDS)
_QUALIFIERS = frozenset(["WHERE", "FOR", "BY", "PER", "OVER"])
_OPERATORS = frozenset(
    [
        "BAR",
        "AMPERSAND",
        "LESS",
        "LESS_EQUAL",
        "MORE",
        "MORE_EQUAL",
        "EQUAL",
        "UNEQUAL",
        "PLUS",
        "MINUS",
        "STAR",
        "FLOORDIV",
        "PERCENT",
        "SLASH",
        "AT_SIGN",
        "IF",
        "IN",
        "SET_EQUAL",
        "WITHIN",
        "LSQUARE",
        "LPAR",
        "DOT",
    ]
)
_COMPARISONS = frozenset(
    ["LESS", "LESS_EQUAL", "MORE", "MORE_EQUAL", "EQUAL", "UNEQUAL"]
)
_EXPRESSION = frozenset(
    [
        "NAME",
        "NUMBER",
        "DECIMAL",
        "TILDE",
        "LPAR",
        "LBRACE",
        "MINUS",
        "THE_MASK",
        "UNION",
        "EVERY",
        "RETENTION",
        "DENSITY",
    ]
)


def expected(accepts: Collection[str]) -> str:
    """What could have come, in words: "`)`, `,` or an operator"."""
    left = set(accepts)
    words = []
    if "PER" in left:
        left -= _QUALIFIERS
    if "ALWAYS" in left:
        left -= _OPTIONS
    if "NUMBER" in left:
        words.append("an expression")
        left -= _EXPRESSION
    elif left & (_OPERATORS - {"MINUS", "LPAR", "LSQUARE"} - _COMPARISONS):
        words.append("an operator")
        left -= _OPERATORS
    elif left and left <= _COMPARISONS:
        return "a comparison such as `<=`"
    items = {"PATTERN", "DEF", "LAYOUT", "ATTENTION"}
    if items <= left:
        words += ["`pattern`", "`def`", "`layout`", "`attention`"]
        left -= items
    if left >= CLAUSES:
        words.append("a clause such as `mask`")
        left -= CLAUSES
    if "NAME" in left:
        words.append("a name")
        left.discard("NAME")
    if "$END" in left:
        words.append("the end of the file")
        left.discard("$END")
    ordered = sorted(left, key=lambda name: (name not in _SIGNS, name))
    words = [f"`{_word(name)}`" for name in ordered] + words
    return listed(words)


def listed(words: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *rest, last = tuple(words) or ("nothing",)
    return f"{', '.join(rest)} or {last}" if rest else last


def _word(terminal: str) -> str:
    """How a user writes a terminal."""
    return _SIGNS.get(terminal, "mask" if terminal == "THE_MASK" else terminal.lower())

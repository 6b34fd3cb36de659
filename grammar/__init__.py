"""The grammar of `.pat` files, as a Lark parser.

In: `pattern.lark` beside this file. Out: an LALR parser whose reductions call a given
transformer. Not its job: telling words from names (`patternc.syntax.words`), making
the tree (`patternc.syntax.build`), messages (`patternc.syntax.parse`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

import lark.lexer
from lark import Lark, Transformer

from patternc.grammar import tables


def build_parser(transformer: Transformer[Any, Any], strict: bool = False) -> Lark:
    """A parser for whole files.

    Reductions call `transformer` at once, so no parse tree is ever walked. With
    `strict`, Lark refuses conflicts in the grammar and proves that no two terminals
    collide; a test builds it so. Otherwise the parser's tables come from
    `tables.json`, which a test compares with the grammar: to derive them takes 0.11 s
    of every start, to read them 0.02 s. Tables of another version of Lark, or of
    another grammar, are not used.
    """
    text = (resources.files(__name__) / "pattern.lark").read_text(encoding="utf-8")
    if strict:
        return _lark(text, transformer, strict=True)
    saved = tables.read(text)
    if saved is not None:
        return tables.parser_of(saved, transformer)
    return derive_parser(text, transformer)


def derive_parser(text: str, transformer: Transformer[Any, Any]) -> Lark:
    """The parser of a grammar's text. The proof is left out: it takes 0.16 s more."""
    with _without_collision_proof():
        return _lark(text, transformer, strict=False)


def _lark(text: str, transformer: Transformer[Any, Any], strict: bool) -> Lark:
    return Lark(
        text, parser="lalr", lexer="basic", transformer=transformer, strict=strict
    )


@contextmanager
def _without_collision_proof() -> Iterator[None]:
    """Lark compares all terminals whenever `interegular` is there; no option says no.

    The flag only decides whether a warning can be logged, so another thread that
    builds a parser meanwhile gets the same parser.
    """
    before = lark.lexer.has_interegular
    lark.lexer.has_interegular = False
    try:
        yield
    finally:
        lark.lexer.has_interegular = before

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


def build_parser(transformer: Transformer[Any, Any], strict: bool = False) -> Lark:
    """A parser for whole files.

    Reductions call `transformer` at once, so no parse tree is ever walked. With
    `strict`, Lark refuses conflicts in the grammar and proves that no two terminals
    collide; a test builds it so. Otherwise the proof is left out: it takes two thirds
    of the time (0.23 s against 0.07 s), and the grammar does not change afterwards.
    """
    text = (resources.files(__name__) / "pattern.lark").read_text(encoding="utf-8")
    if strict:
        return _lark(text, transformer, strict=True)
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

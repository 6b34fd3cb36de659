"""`python -m patternc.grammar`: write `tables.json` anew, into the checkout."""

from __future__ import annotations

from pathlib import Path

from lark import Transformer

from patternc.grammar import derive_parser, tables

HERE = Path(__file__).parent
GRAMMAR = (HERE / "pattern.lark").read_text(encoding="utf-8")
PARSER = derive_parser(GRAMMAR, Transformer())
(HERE / tables.NAME).write_text(tables.text_of(PARSER, GRAMMAR), encoding="utf-8")

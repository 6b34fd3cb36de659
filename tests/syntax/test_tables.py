"""The parser's tables are those of the grammar."""

from __future__ import annotations

import json
from collections import Counter
from importlib import resources
from typing import Any

import pytest
from lark import Lark, Transformer

from patternc import grammar
from patternc.grammar import derive_parser, tables
from patternc.syntax.build import Builder

FOLDER = resources.files("patternc.grammar")
GRAMMAR = (FOLDER / "pattern.lark").read_text(encoding="utf-8")


def rows(content: dict[str, Any]) -> Counter[tuple[tuple[str, int], ...]]:
    """Each state without its number: what it does on which token."""
    table = content["data"]["parser"]["parser"]
    return Counter(
        tuple(sorted((table["tokens"][token], action[0]) for token, action in row))
        for row in (state.items() for state in table["states"].values())
    )


def test_the_tables_are_up_to_date() -> None:
    """If not: `make tables`."""
    kept = tables.read(GRAMMAR)
    assert kept is not None
    parser = derive_parser(GRAMMAR, Transformer())
    derived = json.loads(tables.text_of(parser, GRAMMAR))
    assert rows(kept) == rows(derived)

    def meaning(content: dict[str, Any]) -> list[str]:
        return sorted(map(str, content["memo"].values()))

    assert meaning(kept) == meaning(derived)


def test_other_tables_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tables.read(GRAMMAR) is not None
    assert tables.read(GRAMMAR + " ") is None
    monkeypatch.setattr("lark.__version__", "0")
    assert tables.read(GRAMMAR) is None
    derived: list[str] = []

    def derive(text: str, transformer: Builder) -> Lark:
        derived.append(text)
        return derive_parser(text, transformer)

    monkeypatch.setattr(grammar, "derive_parser", derive)
    grammar.build_parser(Builder())
    assert derived == [GRAMMAR]


def test_the_tables_hold_data_only() -> None:
    content = json.loads((FOLDER / tables.NAME).read_text(encoding="utf-8"))
    assert set(content) == {"key", "data", "memo"}

"""The parser's tables, derived once and kept beside the grammar.

In: a parser that Lark has derived. Out: `tables.json`, and a parser made from it. Not
its job: the grammar. `make tables` writes the file anew after a change of the grammar
or of Lark's version. Lark numbers its states anew each time: the file's bytes differ
from run to run, what they mean does not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib import resources
from typing import Any

import lark
from lark import Lark, Transformer
from lark.grammar import Rule
from lark.lexer import TerminalDef

NAME = "tables.json"


def text_of(parser: Lark, grammar: str) -> str:
    """What `tables.json` holds for a parser of `grammar`, the text of pattern.lark."""
    data, memo = parser.memo_serialize([TerminalDef, Rule])
    del data["options"]["transformer"]
    content = {"key": _key(grammar), "data": data, "memo": memo}
    return json.dumps(content, separators=(",", ":"), sort_keys=True) + "\n"


def read(grammar: str) -> dict[str, Any] | None:
    """The tables, or None if they are not those of this grammar and this Lark."""
    text = (resources.files(__package__) / NAME).read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content if content["key"] == _key(grammar) else None


def parser_of(content: dict[str, Any], transformer: Transformer[Any, Any]) -> Lark:
    """The parser, as Lark's own stand-alone parsers make it from their tables."""
    data, memo = _numbered(content["data"]), _numbered(content["memo"])
    load: Callable[..., Lark] = Lark._load_from_dict
    return load(data, memo, transformer=transformer)


def _key(grammar: str) -> str:
    """Changes with everything that the tables depend on."""
    known = f"{lark.__version__}\n{grammar}"
    return hashlib.sha256(known.encode()).hexdigest()


def _numbered(value: Any) -> Any:
    """JSON has no numbers as keys; Lark's states and its memo have."""
    if isinstance(value, dict):
        return {
            int(key) if key.isdigit() else key: _numbered(item)
            for key, item in value.items()
        }
    return [_numbered(item) for item in value] if isinstance(value, list) else value

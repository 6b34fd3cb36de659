"""Frozen dataclasses as JSON, read strictly.

In: a dataclass, or JSON text that may be anything. Out: the text, or the dataclass.
Every field must be there, none may be beside them, and each must have the declared type:
a dataclass, str, int, float, bool, None, a tuple or mapping of these. Bounds are checked
where the dataclass is made. Not its job: which dataclasses (`manifest`).
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from .format import PackageError

T = TypeVar("T")


def encode(value: object) -> bytes:
    """JSON text, the same for equal values."""
    plain = _plain(value)
    return json.dumps(plain, indent=1, ensure_ascii=True).encode() + b"\n"


def decode(kind: type[T], text: bytes) -> T:
    """The dataclass that `text` says. Raises `PackageError`."""
    try:
        plain = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
        found = _read(kind, plain, "manifest")
    except (ValueError, RecursionError, OverflowError) as error:
        raise PackageError(f"the manifest cannot be read: {error}") from None
    assert isinstance(found, kind)
    return found


def _refuse(word: str) -> object:
    raise ValueError(f"{word} is no number")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names a field twice")
    return found


def _plain(value: object) -> object:
    if is_dataclass(value):
        return {x.name: _plain(getattr(value, x.name)) for x in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    assert value is None or isinstance(value, str | int | float)
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read(kind: Any, value: object, where: str) -> object:
    if is_dataclass(kind):
        return _object(kind, value, where)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(inner, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} is no list")
        return tuple(_read(inner[0], item, where) for item in value)
    if origin is Mapping:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is no object")
        return {
            key: _read(inner[1], item, f"{where}.{key}") for key, item in value.items()
        }
    if type(value) is not kind:
        raise ValueError(f"{where} is no {kind.__name__}")
    return value


def _one_of(kinds: tuple[Any, ...], value: object, where: str) -> object:
    for kind in kinds:
        if is_dataclass(kind) and isinstance(value, dict):
            return _object(kind, value, where)
        if get_origin(kind) is tuple and isinstance(value, list):
            return _read(kind, value, where)
        if type(value) is kind:
            return value
    raise ValueError(f"{where} is of a type that it may not have")


def _object(kind: Any, value: object, where: str) -> object:
    hints = _hints(kind)
    if not isinstance(value, dict) or value.keys() != hints.keys():
        raise ValueError(f"{where} does not have the fields of {kind.__name__}")
    return kind(
        **{x: _read(hints[x], item, f"{where}.{x}") for x, item in value.items()}
    )

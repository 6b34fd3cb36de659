"""Frozen dataclasses as JSON, read strictly.

In: a dataclass, or JSON text that may be anything. Out: the text, or the dataclass.
Every field must be there, none may be beside them, and each must have the declared type:
a dataclass, str, int, float, bool, None, a tuple or mapping of these. Bounds are checked
where the dataclass is made. Not its job: which dataclasses (`manifest`).
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

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
        read: Reader = _reader(cast(Hashable, kind))
        found = read(plain)
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


Reader = Callable[[object], object]
"""What a value of JSON is; raises `ValueError` that begins with where in it."""


@cache
def _reader(kind: Any) -> Reader:
    """The reader of a type; made once, as a manifest has thousands of values."""
    if is_dataclass(kind):
        return _object_reader(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _union_reader(inner)
    if origin is tuple:
        return _list_reader(_reader(inner[0]))
    if origin is Mapping:
        return _map_reader(_reader(inner[1]))

    def read(value: object) -> object:
        if type(value) is not kind:
            raise ValueError(f": no {kind.__name__}")
        return value

    return read


def _object_reader(kind: Any) -> Reader:
    readers = {name: _reader(hint) for name, hint in get_type_hints(kind).items()}

    def read(value: object) -> object:
        if not isinstance(value, dict) or value.keys() != readers.keys():
            raise ValueError(f": not the fields of {kind.__name__}")
        found = {}
        for name, item in value.items():
            try:
                found[name] = readers[name](item)
            except ValueError as error:
                raise ValueError(f".{name}{error}") from None
        return kind(**found)

    return read


def _list_reader(inner: Reader) -> Reader:
    def read(value: object) -> object:
        if type(value) is list:
            return tuple(map(inner, value))
        raise ValueError(": no list")

    return read


def _map_reader(inner: Reader) -> Reader:
    def read(value: object) -> object:
        if type(value) is dict:
            return {key: inner(item) for key, item in value.items()}
        raise ValueError(": no object")

    return read


def _union_reader(kinds: tuple[Any, ...]) -> Reader:
    """The kind whose JSON the value is: no two of a union have the same."""
    readers = {_json_type(kind): _reader(kind) for kind in kinds}
    assert len(readers) == len(kinds)

    def read(value: object) -> object:
        reader = readers.get(type(value))
        if reader is None:
            raise ValueError(": of a type that it may not have")
        return reader(value)

    return read


def _json_type(kind: Any) -> type:
    if is_dataclass(kind) or get_origin(kind) is Mapping:
        return dict
    if get_origin(kind) is tuple:
        return list
    assert isinstance(kind, type)
    return kind

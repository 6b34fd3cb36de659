"""Packages that are damaged, made up or absurd are refused, and nothing else happens."""

from __future__ import annotations

import copy
import json
import random
import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patternc.runtime.codec import decode, encode
from patternc.runtime.format import (
    MAGIC,
    MOST_BLOB,
    VERSION,
    PackageError,
    Section,
    compressed,
    expanded,
    join,
    split,
)
from patternc.runtime.manifest import Manifest
from patternc.runtime.package import package_of, read_package
from tests.runtime.packages import DATA, EVERYTHING, FORWARD, quick_bytes, quick_package

HEADER = 56


def plain() -> bytes:
    return quick_bytes("causal", FORWARD)


def remade(change: Any, content: bytes | None = None) -> bytes:
    """The package with another manifest, and hashes that fit it."""
    text, stored = split(content or plain())
    manifest = json.loads(text)
    change(manifest)
    return join(json.dumps(manifest).encode(), [bytes(stored)])


def test_a_sound_package_is_read() -> None:
    package = package_of(plain())
    assert package.manifest.facts.name == "causal_gqa"
    for variant in package.manifest.variants:
        assert len(package.blob(variant.code)) == 32


def test_what_is_written_is_read() -> None:
    for name in ("window", "ordered", *DATA):
        wanted = FORWARD if name in DATA else EVERYTHING
        manifest = quick_package(name, wanted).manifest
        assert decode(Manifest, encode(manifest)) == manifest


def test_every_flipped_byte_is_refused() -> None:
    content = plain()
    places = {*range(HEADER), *range(HEADER, len(content), 37), len(content) - 1}
    for at in sorted(places):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        with pytest.raises(PackageError):
            package_of(bytes(changed))


def test_a_truncated_or_longer_package_is_refused() -> None:
    content = plain()
    for end in (0, 1, len(MAGIC), HEADER - 1, HEADER, len(content) // 2, -1):
        with pytest.raises(PackageError):
            package_of(content[:end])
    with pytest.raises(PackageError, match="bytes, its header says"):
        package_of(content + b"\0")


def test_another_version_is_refused() -> None:
    content = plain()
    newer = content[:8] + (VERSION + 1).to_bytes(4, "little") + content[12:]
    told = f"format version {VERSION + 1}, this runtime reads {VERSION}"
    with pytest.raises(PackageError, match=told):
        package_of(newer)


@given(st.binary(max_size=200))
def test_anything_at_all_is_refused(content: bytes) -> None:
    for text in (content, MAGIC + content, MAGIC + b"\1\0\0\0" + content):
        with pytest.raises(PackageError):
            package_of(text)


@pytest.mark.parametrize("name", ["causal", "vertical_slash", "pairs", "gated"])
@given(source=st.randoms(use_true_random=False))
def test_a_made_up_manifest_is_refused_or_sound(
    name: str, source: random.Random
) -> None:
    def change(manifest: Any) -> None:
        # What data follow, or anything at all.
        own = manifest if source.random() < 0.5 else manifest["facts"]
        for _ in range(source.randint(1, 3)):
            _mutate(own, source)

    try:
        package = package_of(remade(change, quick_bytes(name, FORWARD)))
        for number in range(len(package.manifest.blobs)):
            package.blob(number)
    except PackageError:
        pass


def _mutate(value: Any, source: random.Random) -> None:
    """Change one thing somewhere inside."""
    while True:
        keys = [*value] if isinstance(value, dict) else [*range(len(value))]
        if not keys:
            return
        key = source.choice(keys)
        inner = value[key]
        if isinstance(inner, dict | list) and inner and source.random() < 0.8:
            value = inner
            continue
        odd: list[Any] = [
            None,
            True,
            -1,
            0,
            2**31,
            2**70,
            0.5,
            "",
            "x" * 300,
            [],
            {},
            [[]],
        ]
        choice = source.randrange(3)
        if choice == 0:
            del value[key]
        elif choice == 1:
            value[key] = copy.deepcopy(source.choice(odd))
        elif isinstance(value, list):
            value.append(copy.deepcopy(inner))
        else:
            value[f"{key}_"] = inner
        return


def test_a_manifest_that_is_no_json_is_refused() -> None:
    for text in (b"", b"[", b"NaN", b"1e999", b"[" * 100_000, b"\xff", b"9" * 5000):
        with pytest.raises(PackageError, match="cannot be read"):
            package_of(join(text, []))
    twice = b'{"patternc": "1", "patternc": "1"}'
    with pytest.raises(PackageError, match="names a field twice"):
        package_of(join(twice, []))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("facts", "heads"), 2**40),
        (("facts", "block_q"), 0),
        (("facts", "kv_heads"), 3),
        (("facts", "params"), {"a b": 1}),
        (("variants", 0, "threads"), 10**9),
        (("variants", 0, "shared"), 2**40),
        (("variants", 0, "code"), 10**6),
        (("variants", 0, "arguments", 0, "kind"), "pickle"),
        (("variants", 0, "arguments", 0, "tile"), None),
        (("variants", 0, "arguments"), [{}]),
        (("blobs", 0, "size"), 2**60),
        (("blobs", 0, "stored"), 2**60),
        (("blobs", 0, "sha256"), "00"),
        (("facts", "groups", 0, "ranges", 0, "lo", "tokens"), ["os.system"]),
        (("facts", "groups", 0, "ranges", 0, "lo", "tokens"), [1, 2]),
        (("facts", "groups", 0, "ranges", 0, "hi", "tokens"), [1, 0, "//"]),
        (("facts", "groups", 0, "ranges", 0, "step"), 0),
    ],
)
def test_an_absurd_manifest_is_refused(path: tuple[Any, ...], value: Any) -> None:
    def change(manifest: Any) -> None:
        *outer, last = path
        for key in outer:
            manifest = manifest[key]
        assert last in manifest or isinstance(last, int)
        manifest[last] = value

    with pytest.raises(PackageError):
        package_of(remade(change))


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("slopes", ("inputs", 0, "name"), "a b"),
        ("slopes", ("inputs", 0, "element"), "object"),
        ("slopes", ("inputs", 0, "axes", 0, "kind"), "x"),
        ("slopes", ("inputs", 0, "axes", 0, "divisor"), 0),
        ("slopes", ("inputs", 0, "is_given"), False),
        ("slopes", ("inputs", 1, "name"), "slope"),
        ("slopes", ("tables",), ["other"]),
        ("slopes", ("reads", "rows"), 0),
        ("slopes", ("reads", "columns"), 1 << 40),
        ("slopes", ("reads", "reads", 0, "table"), "none"),
        ("slopes", ("reads", "reads", 0, "heads"), [-1]),
        ("slopes", ("reads", "reads", 0, "heads"), [4]),
        ("slopes", ("reads", "reads", 0, "places", 0, "tokens"), ["import os"]),
        ("sinks", ("sinks", 0, "heads"), [4]),
        ("sinks", ("sinks", 0, "heads"), []),
        ("sinks", ("sinks", 0, "heads"), [0, 0]),
        ("sinks", ("sinks", 0, "value", "tokens"), ["import os"]),
        ("sinks", ("sinks", 0, "value", "tokens"), []),
        ("sinks", ("sinks", 0, "value", "tokens"), [1]),
        ("sinks", ("sinks", 0, "value", "tokens"), ["o"]),
        ("sinks", ("sinks", 0, "value", "tokens"), [0.5, 0.5]),
        ("sinks", ("sinks", 0, "value", "tokens"), [0.5, "+"]),
        ("sinks", ("sinks", 0, "value", "tokens"), [0.5, 1, "+"]),
        ("sinks", ("sinks", 0, "value", "tokens"), [1, 0.5, "exp"]),
        ("sinks", ("sinks", 0, "value", "tokens"), [1, "exp"]),
        ("sinks", ("sinks", 0, "value", "tokens"), ["h", "read 1 other"]),
        ("sinks", ("sinks", 0, "value", "tokens"), ["h", "h", "read 2 logit"]),
        ("sinks", ("sinks", 0, "value", "tokens"), [0.5, "read 1 logit"]),
        ("sinks", ("sinks", 0, "value", "tokens"), ["h", "read 1 kind"]),
        ("sinks", ("sinks", 0, "value", "tokens"), [0.5, 0.5, 0.5, "select"]),
        ("sinks", ("outputs", 0, "value", "tokens"), ["o", "sinh"]),
        ("sinks", ("outputs", 0, "value", "tokens"), ["o", "p_none", "float", "*"]),
        ("pairs", ("pairs", 0, "table"), "none"),
        ("pairs", ("pairs", 0, "heads"), [4]),
        ("pairs", ("pairs", 0, "sums"), [64]),
        ("pairs", ("pairs", 0, "sums"), [1 << 40, 1]),
        ("pairs", ("pairs", 0, "sums"), [3, 1]),
        ("pairs", ("pairs", 0, "axes"), [0, 1]),
        ("pairs", ("pairs", 0, "axes"), []),
        ("pairs", ("pairs", 1, "places"), [None, None]),
        ("pairs", ("pairs", 1, "places", 0, "tokens"), ["e_0"]),
        ("per_token", ("plan", "selections", 0, "steps", 0, "sides"), ["eval"]),
        ("per_token", ("plan", "selections", 0, "steps", 0, "sides"), [0]),
        ("per_token", ("plan", "selections", 0, "steps", 0, "sizes"), []),
        ("per_token", ("plan", "selections", 0, "steps", 0, "by"), "how"),
        ("small_blocks", ("listed", 0, "judge", "cells", 0, "table"), "none"),
        ("small_blocks", ("listed", 0, "judge", "cells", 0, "sides"), ["q"]),
        ("small_blocks", ("listed", 0, "judge", "cells", 0, "sides"), ["", "q", "os"]),
        ("small_blocks", ("listed", 0, "judge", "seen", "tokens"), ["cell_7"]),
        ("small_blocks", ("list_inputs",), []),
        ("given", ("stripes", "blocks"), [64]),
        ("given", ("stripes", "within", "tokens"), ["k"]),
        ("given", ("stripes", "within", "tokens"), ["q", "read 1 columns"]),
        ("vertical_slash", ("plan",), None),
        ("vertical_slash", ("plan", "probes"), []),
        ("vertical_slash", ("plan", "probes", 0, "stride"), 0),
        ("vertical_slash", ("plan", "probes", 0, "first", "tokens"), ["h"]),
        ("vertical_slash", ("plan", "probes", 0, "params"), ["x"]),
        ("vertical_slash", ("plan", "shared"), {"sm_90": 1 << 40}),
        ("vertical_slash", ("plan", "selections", 0, "table"), "other"),
        ("vertical_slash", ("plan", "selections", 0, "steps"), []),
        ("vertical_slash", ("plan", "selections", 0, "steps", 0, "kind"), "eval"),
        ("vertical_slash", ("plan", "selections", 0, "steps", 0, "how"), "eval"),
        ("vertical_slash", ("plan", "selections", 0, "steps", 0, "by"), "rows"),
        ("vertical_slash", ("plan", "selections", 0, "steps", 0, "sizes"), []),
        ("vertical_slash", ("plan", "selections", 0, "steps", 0, "probe"), 1),
        ("vertical_slash", ("plan", "selections", 0, "choice"), "exec"),
        ("vertical_slash", ("plan", "selections", 0, "amount"), None),
        ("vertical_slash", ("plan", "selections", 0, "ends"), []),
        ("vertical_slash", ("plan", "selections", 1, "firsts", 0), "other"),
        ("vertical_slash", ("plan", "selections", 0, "always", "tokens"), ["e_1"]),
        ("pooled", ("plan", "selections", 0, "steps", 3, "operand"), 3),
        ("pooled", ("plan", "selections", 0, "steps", 1, "sides"), ["scale"]),
        ("pooled", ("plan", "selections", 0, "steps", 1, "sides"), [7, "scale"]),
        ("pooled", ("plan", "selections", 0, "steps", 1, "sides"), [2.0, "scale"]),
        ("pooled", ("plan", "selections", 0, "steps", 1, "sides"), [0, "eval"]),
    ],
    ids=str,
)
def test_absurd_inputs_and_plans_are_refused(
    name: str, path: tuple[Any, ...], value: Any
) -> None:
    def change(manifest: Any) -> None:
        *outer, last = path
        own = manifest["facts"]
        for key in outer:
            own = own[key]
        assert own[last] != value
        own[last] = value

    with pytest.raises(PackageError):
        package_of(remade(change, quick_bytes(name, FORWARD)))


def test_an_absurd_array_is_refused() -> None:
    manifest = quick_package("ordered").manifest
    lists = manifest.facts.lists[0]
    big = replace(lists.forward[0], shape=(2**30, 2**30))
    with pytest.raises(ValueError, match="an absurd array"):
        own = replace(lists, forward=(big, *lists.forward[1:]))
        replace(manifest, facts=replace(manifest.facts, lists=(own,)))


def test_a_formula_that_grows_is_refused() -> None:
    def change(manifest: Any) -> None:
        own = manifest["facts"]["groups"][0]["ranges"][0]["lo"]
        own["tokens"] = [2**30, *([2**30, "*"] * 5000)]

    with pytest.raises(PackageError, match="128 bits|10000 tokens"):
        package_of(remade(change))


def test_a_blob_that_says_less_than_it_is_does_not_fill_the_memory() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    section = Section(len(bomb), 1000, "0" * 64)
    tracemalloc.start()
    with pytest.raises(PackageError, match="is not of the 1000 bytes"):
        expanded(section, bomb)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1_000_000


def test_a_blob_of_another_hash_is_refused() -> None:
    section, stored = compressed(b"some code")
    assert expanded(section, stored) == b"some code"
    with pytest.raises(PackageError, match="another hash"):
        expanded(replace(section, sha256="0" * 64), stored)
    with pytest.raises(PackageError, match="cannot be read"):
        expanded(section, b"\0" + stored[1:])
    with pytest.raises(PackageError, match="is not of"):
        expanded(section, stored + b"\0")
    with pytest.raises(ValueError, match="a blob of"):
        Section(1, MOST_BLOB + 1, "0" * 64)


def test_a_file_is_named_in_the_error(tmp_path: Any) -> None:
    path = tmp_path / "some.patk"
    path.write_bytes(b"no package")
    with pytest.raises(PackageError, match=r"some\.patk: this is no package"):
        read_package(path)

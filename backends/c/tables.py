"""What a manifest says, as tables of a C file.

In: a package. Out: a text for each name of the template `tables.c`. Not its job: the
code that reads them (the other templates).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from patternc.runtime import host
from patternc.runtime.layout import slots_of
from patternc.runtime.manifest import (
    Argument,
    Facts,
    Manifest,
    Tile,
    Variant,
)
from patternc.runtime.package import Package
from patternc.runtime.tiles import ELEMENTS

DTYPES = ("bf16", "fp16", "fp32")
FORMS = ("none", "padded", "packed")
KERNELS = {
    "forward_kernel": "FORWARD",
    "ordered_kernel": "ORDERED",
    "combine_kernel": "COMBINE",
    "delta_kernel": "DELTA",
    "query_gradient_kernel": "QUERY_GRADIENT",
    "key_gradient_kernel": "KEY_GRADIENT",
    "ordered_query_gradient_kernel": "ORDERED_QUERY_GRADIENT",
    "ordered_key_gradient_kernel": "ORDERED_KEY_GRADIENT",
    "hopper_kernel": "HOPPER",
}
_LETTERS = {"descriptor": "t", "i32": "i", "i64": "l", "fp32": "f", "nothing": "n"}

MOST_PER_LINE = 4


@dataclass(frozen=True, slots=True)
class Image:
    """A blob as words of 8 bytes; `size` without the zeros that fill the last one."""

    name: str
    content: bytes

    def text(self) -> str:
        """Its definition. PTX ends in a zero byte, so that there is always one more."""
        whole = self.content + bytes(8 - len(self.content) % 8)
        words = [
            f"0x{int.from_bytes(whole[at : at + 8], 'little'):016x}"
            for at in range(0, len(whole), 8)
        ]
        rows = [
            "  " + ", ".join(words[at : at + MOST_PER_LINE]) + ","
            for at in range(0, len(words), MOST_PER_LINE)
        ]
        head = f"static const uint64_t {self.name}[] = {{"
        return "\n".join([head, *rows, "};", ""])


def images_of(package: Package) -> tuple[Image, ...]:
    """Every blob, in the manifest's order."""
    count = len(package.manifest.blobs)
    return tuple(Image(f"blob_{at}", package.blob(at)) for at in range(count))


def tables(package: Package, images: Sequence[Image]) -> dict[str, str]:
    """The texts of `tables.c`, but for `code`."""
    manifest, facts = package.manifest, package.manifest.facts
    stored = facts.lists[0] if facts.lists else None
    forward = () if stored is None else stored.forward
    turned = () if stored is None else stored.turned
    lists = [array.blob for array in (*forward, *turned)]
    slots = [slots_of(variant.arguments) for variant in manifest.variants]
    most = max(len(variant.arguments) for variant in manifest.variants)
    tiles = _Tiles()
    rows = [_variant(manifest, variant, tiles) for variant in manifest.variants]
    return {
        "block_q": str(facts.block_q),
        "block_k": str(facts.block_k),
        "delta_rows": str(facts.delta_rows),
        **_hopper(facts),
        "most_splits": str(host.MOST_SPLITS),
        "exact_tiles": str(host.EXACT_TILES),
        "least_steps": str(host.LEAST_STEPS),
        "waves": str(host.WAVES),
        "packs": _flag(facts.packs),
        "packed_bytes": str(host.PACKED_BYTES),
        "shares": _flag(facts.shares),
        "hides": _flag(facts.hides),
        "hides_reversed": _flag(facts.hides_reversed),
        "is_ordered": _flag(facts.is_ordered),
        "has_lse": _flag(facts.has_lse),
        "has_gradients": _flag(manifest.backward),
        "layout_size": str(facts.layout_size or 0),
        **_served(manifest),
        "list_tensors": str(facts.list_tensors),
        "turned_tensors": str(facts.turned_tensors if manifest.backward else 0),
        "first_turned": str(len(forward)),
        "list_numbers": str(facts.list_numbers),
        "list_count": str(len(lists)),
        "list_images": ", ".join(map(str, lists)) or "-1",
        "most_arguments": str(most),
        "most_slots": str(max(len(found) for found in slots)),
        "most_bytes": str(max(found[-1].offset + found[-1].size for found in slots)),
        "dims": ", ".join(map(str, manifest.head_dims)),
        "scales": ", ".join((1.0 / math.sqrt(x)).hex() for x in manifest.head_dims),
        "dtype_numbers": ", ".join(str(DTYPES.index(x)) for x in manifest.dtypes),
        "target_rows": "\n".join(_targets(manifest)),
        "image_rows": "\n".join(
            f"    {{{image.name}, {len(image.content)}}}," for image in images
        ),
        "tile_rows": tiles.text(),
        "variant_rows": "\n".join(rows),
    }


def _flag(value: bool) -> str:
    return str(int(value))


def _hopper(facts: Facts) -> dict[str, str]:
    """The kernel for sm_90; head size 0 where there is none."""
    dims = [stages.columns for stages in facts.hopper_stages]
    pairs = [f"{{{dim}, {host.HOPPER_KEYS[dim]}}}" for dim in dims]
    return {
        "has_hopper": _flag(facts.hopper_blocks is not None),
        "hopper_q": str((facts.hopper_blocks or (1, 1))[0]),
        "hopper_walks": _flag(len(facts.groups) == 1),
        "hopper_together": str(host.HOPPER_TOGETHER),
        "hopper_keys": ", ".join(pairs) or "{0, 0}",
    }


def _served(manifest: Manifest) -> dict[str, str]:
    """The forms of sequences that there are kernels for."""
    found = {}
    for form in FORMS[1:]:
        for word, name in (
            ("", "forward_kernel"),
            ("_backward", "key_gradient_kernel"),
        ):
            is_there = any(
                x.kernel == name and x.constants.get("SEQUENCES") == form
                for x in manifest.variants
            )
            found[f"serves_{form}{word}"] = _flag(is_there)
    return found


def _targets(manifest: Manifest) -> list[str]:
    rows = []
    for target in manifest.targets:
        own = [x for x in manifest.variants if x.target == target]
        has_ptx = _flag(any(x.ptx is not None for x in own))
        number = target.removeprefix("sm_")
        rows.append(f'    {{{number}, {has_ptx}, "{target}", "{target} PTX"}},')
    return rows


class _Tiles:
    """The tiles of descriptors, in rows that variants share."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}

    def name(self, arguments: Iterable[Argument]) -> str:
        """What the tiles of some arguments are called; NULL if there are none."""
        own = [x for x in arguments if x.tile is not None]
        if not own:
            return "NULL"
        row = ", ".join(_tile(x.tile, x.element) for x in own if x.tile is not None)
        return f"tiles_{self._rows.setdefault(row, len(self._rows))}"

    def text(self) -> str:
        """Their definitions."""
        return "\n".join(
            f"static const tile tiles_{at}[] = {{{row}}};"
            for row, at in self._rows.items()
        )


def _tile(tile: Tile, element: str) -> str:
    box = ", ".join(map(str, tile.block))
    return f"{{{tile.element_type}, {ELEMENTS[element]}, {tile.swizzle}, {{{box}}}}}"


def _variant(manifest: Manifest, variant: Variant, tiles: _Tiles) -> str:
    constants = variant.constants
    dim = constants.get("HEAD_DIM", constants["VALUE_DIM"])
    flags = ("EXACT", "IS_SPLIT", "PACKED")
    numbers = (
        manifest.targets.index(variant.target),
        KERNELS[variant.kernel],
        DTYPES.index(variant.dtype),
        dim,
        FORMS.index(str(constants.get("SEQUENCES", "none"))),
        *(
            int(bool(constants.get(flag))) if variant.kernel != "combine_kernel" else 0
            for flag in flags
        ),
        variant.threads,
        variant.shared,
        variant.code,
        -1 if variant.ptx is None else variant.ptx,
        f'"{variant.entry}"',
        f'"{letters(variant.arguments)}"',
        tiles.name(variant.arguments),
    )
    return f"    {{{', '.join(map(str, numbers))}}},"


def letters(arguments: Sequence[Argument]) -> str:
    """A letter for each argument: see `kinds` in the C file."""
    found = []
    for argument in arguments:
        if argument.kind == "pointer":
            found.append("a" if argument.aligned else "p")
        else:
            found.append(_LETTERS[argument.kind])
    return "".join(found)


def keys(manifest: Manifest) -> list[tuple[object, ...]]:
    """What the C file finds each variant by; no two are equal (a test holds it)."""
    rows = [_variant(manifest, x, _Tiles()) for x in manifest.variants]
    return [tuple(row.strip(" {},").split(", ")[:8]) for row in rows]

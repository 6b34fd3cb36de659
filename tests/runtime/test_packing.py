"""Arguments, byte by byte, as machine code expects them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import torch

from patternc.runtime.layout import format_of, slots_of
from patternc.runtime.manifest import Argument, Tile, Usage, Variant
from patternc.runtime.packing import Packer
from tests.runtime.packages import (
    DATA,
    EVERYTHING,
    PROGRAMS,
    TRAINED,
    StubDriver,
    quick_package,
)


def variant_of(*arguments: Argument) -> Variant:
    usage = Usage(1, 0, (), {})
    numbers = (4, 128, 2, 0, 0, None, usage)
    return Variant("some_kernel", "sm_90", "bf16", "entry", {}, arguments, *numbers)


def pointer(name: str, is_aligned: bool = True) -> Argument:
    return Argument(name, "pointer", "bf16", is_aligned, None)


def number(name: str, kind: str) -> Argument:
    return Argument(name, kind, "", False, None)


class Seen:
    """What a kernel's argument is made from, on the host: a tensor seen by tiles."""

    def __init__(self, base: torch.Tensor) -> None:
        self.base = base
        self.shape, self.strides = [2, 3, 50, 64], [9600, 3200, 64, 1]


def expected_bytes(variant: Variant, given: list[Any]) -> bytes:
    """By the rules of the C language, written again."""
    content = b""

    def put(value: bytes, alignment: int) -> None:
        nonlocal content
        content += bytes(-len(content) % alignment) + value

    for argument, value in zip(variant.arguments, given, strict=True):
        match argument.kind:
            case "pointer":
                put(value.data_ptr().to_bytes(8, "little"), 8)
            case "i32":
                put(value.to_bytes(4, "little", signed=True), 4)
            case "i64":
                put(value.to_bytes(8, "little", signed=True), 8)
            case "fp32":
                put(struct.pack("<f", value), 4)
            case "nothing":
                assert value is None
            case "descriptor":
                assert argument.tile is not None
                size = {"bf16": 2, "fp16": 2, "fp32": 4}[argument.element]
                where = value.base.data_ptr()
                shape, strides = value.shape, value.strides
                encode = StubDriver().encode
                put(encode(argument.tile, size, where, shape, strides), 64)
                for length in shape:
                    put(length.to_bytes(4, "little"), 4)
                for stride in strides:
                    put(stride.to_bytes(8, "little"), 8)
    for _ in ("global scratch", "profile scratch"):
        put(bytes(8), 8)
    return content


def values_for(variant: Variant) -> list[Any]:
    """A value for each argument, all different."""
    found: list[Any] = []
    for at, argument in enumerate(variant.arguments):
        match argument.kind:
            case "pointer":
                found.append(torch.empty(64))
            case "descriptor":
                found.append(Seen(torch.empty(64, dtype=torch.bfloat16)))
            case "i32":
                found.append(-1000 - at)
            case "i64":
                found.append(-(2**40) - at)
            case "fp32":
                found.append(0.125 + at)
            case _:
                found.append(None)
    return found


@pytest.mark.parametrize("name", [*PROGRAMS, *DATA])
def test_every_signature(name: str) -> None:
    wanted = TRAINED if name in DATA else EVERYTHING
    variants = quick_package(name, wanted).manifest.variants
    kinds = {argument.kind for x in variants for argument in x.arguments}
    assert {"pointer", "i32", "i64", "fp32"} <= kinds
    for variant in {x.arguments: x for x in variants}.values():
        packer, values = Packer(variant, StubDriver().encode), values_for(variant)
        for _ in range(2):  # the second time with a buffer and maps that were used
            buffer = packer.pack(values)
            expected = expected_bytes(variant, values)
            assert buffer.content(len(expected)) == expected
            start = buffer.address
            assert start and (buffer.pointers[0] or 0) % 64 == 0
            places = [(x or 0) - (buffer.pointers[0] or 0) for x in buffer.pointers]
            assert places == [slot.offset for slot in slots_of(variant.arguments)]
            packer.free(buffer)


def test_gaps_by_hand() -> None:
    tile = Tile((1, 16), 3, 9)
    arguments = (
        number("a", "i32"),
        pointer("p"),
        number("b", "fp32"),
        Argument("t", "descriptor", "bf16", True, tile),
        number("c", "i64"),
    )
    slots = slots_of(arguments)
    found = [(slot.offset, slot.size) for slot in slots]
    assert found == [
        (0, 4),
        (8, 8),
        (16, 4),
        (64, 128),
        (192, 4),
        (196, 4),
        (200, 8),
        (208, 8),
        (216, 8),
        (224, 8),
        (232, 8),
    ]
    assert struct.calcsize(format_of(slots)) == 240


def test_an_address_off_16_bytes_is_refused() -> None:
    packer = Packer(variant_of(pointer("p"), pointer("free", False)), _no_map)
    whole = torch.zeros(64, dtype=torch.bfloat16)
    packer.pack([whole, whole[1:]])
    with pytest.raises(
        ValueError, match=r"some_kernel: `p`: expected an address on 16"
    ):
        packer.pack([whole[1:], whole])


@pytest.mark.parametrize(("kind", "value"), [("i32", 2**31), ("i64", 2**63)])
def test_a_number_that_does_not_fit_is_refused(kind: str, value: int) -> None:
    packer = Packer(variant_of(number("n", kind)), _no_map)
    with pytest.raises(ValueError, match="does not fit"):
        packer.pack([value])


def test_what_is_not_taken_is_refused() -> None:
    packer = Packer(variant_of(number("n", "nothing")), _no_map)
    packer.pack([None])
    with pytest.raises(ValueError, match="`n` is not taken"):
        packer.pack([torch.zeros(1)])


def test_maps_are_made_once_for_a_tensor_and_forgotten_in_the_end() -> None:
    made: list[int] = []

    def encode(tile: Tile, size: int, address: int, *sizes: object) -> bytes:
        made.append(address)
        return address.to_bytes(128, "little")

    tile = Tile((1, 1, 64, 64), 3, 9)
    argument = Argument("t", "descriptor", "bf16", True, tile)
    packer = Packer(variant_of(argument), encode)
    tensors = [Seen(torch.empty(64, dtype=torch.bfloat16)) for _ in range(300)]
    for seen in (*tensors, tensors[-1]):
        packer.free(packer.pack([seen]))
    assert len(made) == 300
    packer.pack([tensors[0]])
    assert len(made) == 301


def _no_map(*given: object) -> bytes:
    raise AssertionError("no descriptor here")

"""What `tests.interpreter` changes of Triton's interpreter, and what it leaves."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

SIZE = 4


@triton.jit  # type: ignore[untyped-decorator]
def combine(x, y, WORD: tl.constexpr):  # type: ignore[no-untyped-def]
    """A function that a kernel calls."""
    if WORD == "add":
        return x + y
    if WORD == "sub":
        return x - y
    return x * y


@triton.jit  # type: ignore[untyped-decorator]
def kernel(x_pointer, y_pointer, out, WORD: tl.constexpr, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """`out = x WORD y`, and after it the greatest of them."""
    at = tl.arange(0, SIZE)
    found = combine(tl.load(x_pointer + at), tl.load(y_pointer + at), WORD)
    tl.store(out + at, found)
    tl.store(out + SIZE, tl.max(found, 0))


def computed(x: list[int], y: list[int], word: str, held: torch.dtype) -> list[int]:
    """What the kernel gives."""
    pair = [torch.tensor(numbers, dtype=held) for numbers in (x, y)]
    out = torch.zeros(SIZE + 1, dtype=held)
    kernel[(1,)](*pair, out, word, SIZE)
    return [int(number) for number in out]


LARGEST = 2**31 - 1


@pytest.mark.parametrize(
    ("word", "x", "y"),
    [("add", LARGEST, 1), ("sub", -LARGEST, 2), ("mul", 2**16, 2**15)],
)
def test_an_overflow_is_an_error(word: str, x: int, y: int) -> None:
    others = [3, 1, 2]
    with pytest.raises(InterpreterError, match="no int32 holds the result"):
        computed([*others, x], [*others, y], word, torch.int32)
    own = {"add": x + y, "sub": x - y, "mul": x * y}[word]
    assert computed([*others, x], [*others, y], word, torch.int64)[3] == own


def test_results_up_to_the_limit_are_none() -> None:
    """Equal sizes and types, one after another, are made once and stay apart."""
    found = computed([LARGEST - 1, -LARGEST, 0, 5], [1, -1, 7, 6], "add", torch.int32)
    assert found == [LARGEST, -LARGEST - 1, 7, 11, LARGEST]
    assert computed([9, 2, 0, 5], [1, 4, 7, 6], "mul", torch.int8) == [9, 8, 0, 30, 30]


def test_a_negated_word_wraps() -> None:
    word = -LARGEST - 1
    assert computed([0] * 4, [word, 1, 2, 3], "sub", torch.int32)[:2] == [word, -1]


def test_the_language_is_left_as_it_was() -> None:
    before = tl.load, tl.max, tl.tensor.__add__, tl.range
    computed([1, 2, 3, 4], [1, 2, 3, 4], "add", torch.int32)
    assert (tl.load, tl.max, tl.tensor.__add__, tl.range) == before

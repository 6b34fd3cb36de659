"""The schedule that a caller asks for.

In: a schedule of whatever numbers. Out: the same in plain integers, or an error that
says what is wrong. Not its job: choosing one (`plan.choose`).
"""

from __future__ import annotations

import operator

from patternc.plan.kernel import Schedule

SMALLEST_BLOCK = 16
LARGEST = {"block_q": 1024, "block_k": 1024, "warps": 32, "stages": 8}
"""The greatest value of each number of a schedule."""


def checked(schedule: Schedule) -> Schedule:
    """The schedule with plain integers; `stages` may be None.

    Raises `ValueError` for blocks that are no power of two from 16 to 1024, warps that are
    none from 1 to 32 and stages outside 1 to 8, `TypeError` for what is no integer.
    """
    numbers: dict[str, int] = {}
    for name, largest in LARGEST.items():
        value: object = getattr(schedule, name)
        if name == "stages" and value is None:
            continue
        expected = f"schedule: `{name}`: expected"
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            came = f"{type(value).__name__} {value!r}"
            raise TypeError(f"{expected} an integer, got {came}")
        number = operator.index(value)
        least = SMALLEST_BLOCK if name.startswith("block") else 1
        kind = "an integer" if name == "stages" else "a power of two"
        in_range = least <= number <= largest
        if not in_range or (name != "stages" and number & (number - 1)):
            span = f"from {least} to {largest}"
            raise ValueError(f"{expected} {kind} {span}, got {number}")
        numbers[name] = number
    return Schedule(**numbers)

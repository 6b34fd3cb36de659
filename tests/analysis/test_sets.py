"""Integer sets whose steps are used up."""

from __future__ import annotations

import islpy as isl
import pytest

from patternc.analysis.sets import TooHard, bounded_context, whole_number


def used_up(context: isl.Context) -> None:
    with pytest.raises(isl.Error):
        for _ in range(1000):
            isl.Set.read_from_str(context, "{ [x] : x >= 0 and x mod 3 = 1 }").lexmin()


def test_too_many_steps_are_too_hard() -> None:
    with pytest.raises(TooHard), bounded_context(100) as context:
        isl.Set.read_from_str(context, "{ [x] : x >= 0 }")
        used_up(context)
        isl.Set.read_from_str(context, "{ [x] : x >= 0 }")


def test_a_number_that_isl_no_longer_writes_is_too_hard() -> None:
    """It gives None in place of its text, and raises nothing."""
    with bounded_context(100) as context:
        value = isl.Val.int_from_si(context, 7)
        assert whole_number(value) == 7
        used_up(context)
        with pytest.raises(TooHard):
            whole_number(value)

"""What a call is refused for, and that the message names the argument."""

from __future__ import annotations

import ast
import inspect
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from patternc.backends import checks
from patternc.backends.checks import check_call, check_params


def tensor(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


Q, K = tensor(2, 4, 5, 8), tensor(2, 2, 9, 8)


def call(
    q: object = Q,
    k: object = K,
    v: object = K,
    *,
    scale: object = None,
    q_offset: object = None,
    **narrower: object,
) -> tuple[float, int]:
    return check_call(  # wrong types are the point
        "demo",
        q,  # type: ignore[arg-type]
        k,  # type: ignore[arg-type]
        v,  # type: ignore[arg-type]
        heads=4,
        kv_heads=2,
        scale=scale,
        q_offset=q_offset,
        **narrower,  # type: ignore[arg-type]
    )


def test_the_defaults_are_one_over_root_d_and_bottom_right() -> None:
    assert call() == (1 / math.sqrt(8), 4)


@pytest.mark.parametrize("scale", [2, 2.0, np.float32(2), Fraction(2)])
@pytest.mark.parametrize("q_offset", [-3, np.int64(-3), torch.tensor(-3)])
def test_any_number_of_the_right_kind_will_do(scale: object, q_offset: object) -> None:
    found = call(scale=scale, q_offset=q_offset)
    assert found == (2.0, -3)
    assert [type(value) for value in found] == [float, int]


@pytest.mark.parametrize("shape", [(0, 4, 5, 8), (2, 4, 0, 8)])
def test_no_batch_and_no_rows_are_accepted(shape: tuple[int, ...]) -> None:
    k = tensor(shape[0], 2, 9, 8)
    assert call(tensor(*shape), k, k)[1] == 9 - shape[2]


def test_no_keys_are_accepted() -> None:
    k = tensor(2, 2, 0, 8)
    assert call(k=k, v=k)[1] == -5


WRONG = {
    "q: type": ({"q": [1.0]}, TypeError, "`q`: .*torch.Tensor, got list"),
    "k: type": ({"k": np.zeros(3)}, TypeError, "`k`: .*torch.Tensor, got ndarray"),
    "q: rank": ({"q": tensor(4, 5, 8)}, ValueError, r"`q`: .*4 dim.*\[4, 5, 8\]"),
    "q: heads": ({"q": tensor(2, 3, 5, 8)}, ValueError, r"`q`: .*\[B, 4, .*3 heads"),
    "k: heads": ({"k": tensor(2, 4, 9, 8)}, ValueError, r"`k`: .*\[B, 2, .*4 heads"),
    "v: heads": ({"v": tensor(2, 4, 9, 8)}, ValueError, r"`v`: .*\[B, 2, .*4 heads"),
    "k: batch": ({"k": tensor(1, 2, 9, 8)}, ValueError, "`k`: .*B = 2 .*1, 2, 9, 8"),
    "v: batch": ({"v": tensor(1, 2, 9, 8)}, ValueError, "`v`: .*B = 2 .*1, 2, 9, 8"),
    "k: D": ({"k": tensor(2, 2, 9, 4)}, ValueError, "`k`: .*D = 8 .*2, 2, 9, 4"),
    "v: D": ({"v": tensor(2, 2, 9, 4)}, ValueError, "`v`: .*D = 8 .*2, 2, 9, 4"),
    "v: n_k": ({"v": tensor(2, 2, 7, 8)}, ValueError, "`v`: .*n_k = 9 .*2, 2, 7, 8"),
    "q: no D": ({"q": tensor(2, 4, 5, 0)}, ValueError, "`q`: .*D of at least 1"),
    "q: ints": (
        {name: x.long() for name, x in (("q", Q), ("k", K), ("v", K))},
        TypeError,
        "`q`: .*floating dtype, got torch.int64",
    ),
    "k: dtype": ({"k": K.half()}, TypeError, "`k`: .*float32 as `q`.*float16"),
    "v: dtype": ({"v": K.double()}, TypeError, "`v`: .*float32 as `q`.*float64"),
    "k: device": ({"k": K.to("meta")}, ValueError, "`k`: .*on cpu as `q`.*on meta"),
    "q: sparse": ({"q": Q.to_sparse()}, TypeError, "`q`: .*strided.*sparse_coo"),
    "q: long": (
        {"q": torch.zeros(1).expand(2, 4, 2**30 + 1, 8)},
        ValueError,
        r"`q`: .*n_q of at most 2\*\*30",
    ),
    "scale: text": ({"scale": "2"}, TypeError, "`scale`: .*a number, got str"),
    "scale: bool": ({"scale": True}, TypeError, "`scale`: .*got bool True"),
    "scale: tensor": ({"scale": torch.ones(())}, TypeError, "`scale`: .*got Tensor"),
    "scale: nan": ({"scale": math.nan}, ValueError, "`scale`: .*finite.*nan"),
    "scale: inf": ({"scale": -math.inf}, ValueError, "`scale`: .*finite.*-inf"),
    "offset: float": ({"q_offset": 1.0}, TypeError, "`q_offset`: .*got float 1.0"),
    "offset: bool": ({"q_offset": True}, TypeError, "`q_offset`: .*got bool True"),
    "offset: float tensor": (
        {"q_offset": torch.ones(())},
        TypeError,
        "`q_offset`: .*integer, got Tensor",
    ),
    "offset: large": ({"q_offset": 2**30 + 1}, ValueError, r"`q_offset`: .*2\*\*30"),
    "offset: small": ({"q_offset": -(2**63)}, ValueError, r"`q_offset`: .*2\*\*30"),
    "head size": ({"head_dims": (128, 64)}, ValueError, "`q`: .*D of 64 or 128, got 8"),
    "dtypes": (
        {"dtypes": (torch.float16,)},
        TypeError,
        "`q`: expected torch.float16, got torch.float32",
    ),
    "device": ({"device_type": "cuda"}, ValueError, "`q`: .*a cuda tensor.*on cpu"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_named_with_what_was_expected_and_what_came(
    case: str,
) -> None:
    arguments, error, message = WRONG[case]
    with pytest.raises(error, match=f"^demo: {message}"):
        call(**arguments)  # type: ignore[arg-type]


def test_the_limits_themselves_are_accepted() -> None:
    assert call(q_offset=-(2**30))[1] == -(2**30)
    assert call(q_offset=2**30)[1] == 2**30
    longest = torch.zeros(1).expand(2, 4, 2**30, 8)
    assert call(longest)[1] == 9 - 2**30


def test_parameters_take_their_defaults() -> None:
    declared = {"width": 5, "sink": None}
    assert check_params("demo", declared, {"sink": 2}) == {"width": 5, "sink": 2}
    given = {"sink": np.int32(1), "width": 0}
    assert check_params("demo", declared, given) == {"width": 0, "sink": 1}


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, TypeError, "`sink`: expected an integer, got nothing"),
        (
            {"sink": 1, "with": 2},
            TypeError,
            "`with` is not a run-time .*`width`, `sink`",
        ),
        ({"sink": 1.5}, TypeError, "`sink`: expected an integer, got float 1.5"),
        ({"sink": True}, TypeError, "`sink`: expected an integer, got bool True"),
        ({"sink": "1"}, TypeError, "`sink`: expected an integer, got str '1'"),
        ({"sink": 2**31}, ValueError, r"`sink`: .*2\*\*30, got 2147483648"),
    ],
)
def test_a_wrong_parameter_is_named(
    given: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^demo: {message}"):
        check_params("demo", {"width": 5, "sink": None}, given)


def test_without_parameters_a_name_is_said_to_be_one_too_many() -> None:
    with pytest.raises(TypeError, match="`w` is not a run-time parameter; it has none"):
        check_params("demo", {}, {"w": 1})


def test_the_file_imports_nothing_but_torch_and_the_standard_library() -> None:
    """Generated modules carry its text."""
    imported = set()
    for node in ast.walk(ast.parse(inspect.getsource(checks))):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))
    assert imported == {
        "__future__",
        "collections.abc",
        "math",
        "numbers",
        "operator",
        "torch",
    }

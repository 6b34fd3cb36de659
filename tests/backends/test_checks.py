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

from patternc.backends import checks, input_checks
from patternc.backends.checks import check_call, check_params
from patternc.backends.input_checks import check_inputs, check_values


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


def test_values_may_have_another_size() -> None:
    assert call(v=tensor(2, 2, 9, 3))[0] == 1 / math.sqrt(8)


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
    "v: no D_v": ({"v": tensor(2, 2, 9, 0)}, ValueError, "`v`: .*D of at least 1"),
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
    "D": ({"largest_dim": 7}, ValueError, "`q`: .*head size D from 1 to 7, got 8"),
    "D_v": (
        {"v": tensor(2, 2, 9, 10), "largest_dim": 9},
        ValueError,
        "`v`: .*head size D_v from 1 to 9, got 10",
    ),
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
    text = inspect.getsource(checks) + inspect.getsource(input_checks)
    for node in ast.walk(ast.parse(text)):
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


# --- inputs -------------------------------------------------------------------------

DECLARED: input_checks.Declared = {
    "doc": ("int", (("k", 0, 1, 0),), True),
    "keep": ("bool", (("h", 0, 1, 0), ("q", 0, 4, 0), ("k", 2, 3, 0)), False),
    "bias": ("float", (("size", 0, 1, 7), ("g", 0, 1, 0)), False),
    "prefix": ("int", (("b", 0, 1, 0),), False),
}


def given(**changed: object) -> dict[str, object]:
    """Inputs of a call of 2 batch elements, 4 heads on 2, rows 4 to 8 of 9 keys."""
    right: dict[str, object] = {
        "doc": torch.zeros(9, dtype=torch.int16),
        "keep": torch.zeros(4, 3, 3, dtype=torch.bool),
        "bias": torch.zeros(7, 2, dtype=torch.bfloat16),
        "prefix": torch.zeros(2, dtype=torch.int64),
    }
    return right | changed


def inputs(
    values: dict[str, object], dtype: torch.dtype = torch.float32, **sizes: int
) -> dict[str, Tensor]:
    wanted = {
        "batch": 2,
        "heads": 4,
        "kv_heads": 2,
        "n_q": 5,
        "n_k": 9,
        "q_offset": 4,
        **sizes,
    }
    device = torch.device("cpu")
    return check_inputs("demo", DECLARED, values, device=device, dtype=dtype, **wanted)


def test_inputs_come_back_with_a_batch_axis() -> None:
    found = inputs(given())
    assert {name: tuple(x.shape) for name, x in found.items()} == {
        "doc": (1, 9),
        "keep": (1, 4, 3, 3),
        "bias": (1, 7, 2),
        "prefix": (2,),
    }
    assert [x.dtype for x in found.values()] == [
        torch.int16,
        torch.bool,
        torch.float32,
        torch.int64,
    ]
    for batch in (1, 2):
        own = given(doc=torch.zeros(batch, 9, dtype=torch.uint8))
        assert inputs(own)["doc"].shape == (batch, 9)
    assert inputs(given(), torch.float64)["bias"].dtype == torch.float64
    assert inputs(given(), torch.float16)["bias"].dtype == torch.float32


def test_gradients_pass_the_check() -> None:
    bias = torch.zeros(7, 2, dtype=torch.float16, requires_grad=True)
    torch.autograd.backward(inputs(given(bias=bias))["bias"].sum())
    assert bias.grad is not None
    assert (bias.grad == 1).all()


@pytest.mark.parametrize(
    ("axis", "length", "size"),
    [
        (("k", 0, 1, 0), 9, 9),
        (("k", 0, 4, 0), 9, 3),
        (("k", 0, 4, 0), 8, 2),
        (("k", 5, 1, 0), 9, 4),
        (("k", 9, 1, 0), 9, 0),
        (("k", 10, 3, 0), 9, 0),
        (("k", -2, 4, 0), 9, 3),
        (("k", 0, 1, 0), 0, 0),
        (("q", 0, 2, 0), -3, 0),
        (("size", 0, 1, 7), 9, 7),
        (("h", 0, 1, 0), 9, 9),
    ],
)
def test_a_position_axis_ends_with_the_last_position(
    axis: input_checks.AxisOf, length: int, size: int
) -> None:
    assert input_checks.axis_size(axis, {"q": length, "k": length, "h": length}) == size


WRONG_INPUT: dict[str, tuple[dict[str, object], type[Exception], str]] = {
    "missing": ({"doc": None}, TypeError, "`doc`: expected a tensor of int, got noth"),
    "type": ({"doc": [1]}, TypeError, "`doc`: expected a torch.Tensor, got list"),
    "int: float": ({"doc": torch.zeros(9)}, TypeError, "`doc`: .*integer.*float32"),
    "int: bool": (
        {"doc": torch.zeros(9, dtype=torch.bool)},
        TypeError,
        "`doc`: expected an integer dtype, got torch.bool",
    ),
    "bool: int": (
        {"keep": torch.zeros(4, 3, 3, dtype=torch.uint8)},
        TypeError,
        "`keep`: expected torch.bool, got torch.uint8",
    ),
    "float: int": (
        {"bias": torch.zeros(7, 2, dtype=torch.int32)},
        TypeError,
        "`bias`: expected a floating dtype, got torch.int32",
    ),
    "float: complex": (
        {"bias": torch.zeros(7, 2, dtype=torch.complex64)},
        TypeError,
        "`bias`: expected a floating dtype, got torch.complex64",
    ),
    "short": (
        {"doc": torch.zeros(8, dtype=torch.int32)},
        ValueError,
        r"`doc`: expected \[9\], or with a batch axis \[2, 9\] \(k\), got \[8\]",
    ),
    "batch": (
        {"doc": torch.zeros(3, 9, dtype=torch.int32)},
        ValueError,
        r"`doc`: .*\[2, 9\].*got \[3, 9\]",
    ),
    "own batch": (
        {"prefix": torch.zeros(1, dtype=torch.int32)},
        ValueError,
        r"`prefix`: expected \[2\] \(b\), got \[1\]",
    ),
    "shape": (
        {"keep": torch.zeros(4, 3, 4, dtype=torch.bool)},
        ValueError,
        r"`keep`: expected \[4, 3, 3\].*\(h, q, k\), got \[4, 3, 4\]",
    ),
    "device": (
        {"doc": torch.zeros(9, dtype=torch.int32, device="meta")},
        ValueError,
        "`doc`: expected a tensor on cpu as `q`, got one on meta",
    ),
}


@pytest.mark.parametrize("case", WRONG_INPUT)
def test_a_wrong_input_is_named(case: str) -> None:
    changed, error, message = WRONG_INPUT[case]
    with pytest.raises(error, match=f"^demo: {message}"):
        inputs(given(**changed))


def test_an_unknown_name_is_told_what_there_is() -> None:
    message = "`dok` is neither a .* nor an input; its inputs are `doc`; its .* `width`"
    with pytest.raises(TypeError, match=message):
        check_params("demo", {"width": 1}, {"dok": 1}, ["doc"])
    with pytest.raises(TypeError, match="its inputs are `doc`; it has no such param"):
        check_params("demo", {}, {"dok": 1}, ["doc"])
    assert check_params("demo", {"width": 1}, {"doc": 1}, ["doc"]) == {"width": 1}


def test_values_are_looked_at_on_request() -> None:
    check_values("demo", DECLARED, inputs(given()))
    wrong = {
        "doc": (
            torch.tensor([0, 0, 2, 1, 1, 1, 3, 3, 3]),
            r"never fall.*got 1 .*\[3\]",
        ),
        "bias": (torch.full((7, 2), math.nan), "finite numbers, got nan"),
        "prefix": (torch.tensor([0, 2**31]), "32 bits, got 2147483648 at batch elem"),
    }
    for name, (value, message) in wrong.items():
        with pytest.raises(ValueError, match=f"^demo: `{name}`: expected .*{message}"):
            check_values("demo", DECLARED, inputs(given(**{name: value})))
    infinite = inputs(given(bias=torch.full((7, 2), -math.inf)))
    with pytest.raises(ValueError, match="`bias`: .*-inf"):
        check_values("demo", DECLARED, infinite)


def test_a_narrow_sorted_input_is_compared_without_overflow() -> None:
    falls = torch.tensor([0, 0, 0, 0, 0, 0, 0, 255, 1], dtype=torch.uint8)
    with pytest.raises(ValueError, match="`doc`: .*never fall.*got 1"):
        check_values("demo", DECLARED, inputs(given(doc=falls)))
    rises = torch.tensor([0, 0, 0, 0, 0, 0, 1, 2, 255], dtype=torch.uint8)
    check_values("demo", DECLARED, inputs(given(doc=rises)))


def test_a_layout_has_one_length() -> None:
    checks.check_length("demo", 9, 4, 9, 5)
    with pytest.raises(ValueError, match="`k`: expected the 9 tokens of .*, got 8"):
        checks.check_length("demo", 9, 4, 8, 4)
    with pytest.raises(ValueError, match="`q`: .* end at token 9 .*, got 4 from 4 on"):
        checks.check_length("demo", 9, 4, 9, 4)


@pytest.mark.parametrize(
    ("n_q", "n_k", "q_offset"), [(4, 9, 6), (4, 9, -1), (10, 9, 0)]
)
def test_an_output_with_v_needs_every_query_among_the_keys(
    n_q: int, n_k: int, q_offset: int
) -> None:
    checks.check_own_values("demo", 4, 9, 5)
    checks.check_own_values("demo", 0, 9, 50)
    with pytest.raises(ValueError, match="`q`: expected every query among the keys"):
        checks.check_own_values("demo", n_q, n_k, q_offset)


def test_weights_without_a_sum_have_no_lse() -> None:
    checks.check_lse("demo", ())
    with pytest.raises(ValueError, match="`return_lse`: expected False, .* head 3"):
        checks.check_lse("demo", (3, 5))


def test_the_batch_is_that_of_the_inputs() -> None:
    assert input_checks.batch_of(DECLARED, {}) is None
    assert input_checks.batch_of(DECLARED, given(prefix=3)) is None
    assert input_checks.batch_of(DECLARED, given()) == 2
    two = given(doc=torch.zeros(4, 9), prefix=torch.zeros(1))
    assert input_checks.batch_of(DECLARED, two) == 4

"""What a call costs beside its computation, and that no shortcut is seen."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import patternc
from patternc.backends import checks
from patternc.ops.program import add_program
from patternc.ops.watched import is_watched

HEADS, KEYS, DIM = 4, 6, 8
SOURCE = f"attention causal_heads {{ heads {HEADS} kv 2\n mask causal }}"


@pytest.fixture(scope="module")
def attention(tmp_path_factory: pytest.TempPathFactory) -> patternc.Attention:
    path = tmp_path_factory.mktemp("overhead") / "causal.pat"
    path.write_text(SOURCE, encoding="utf-8")
    return patternc.load(path)


def tensors(**options: Any) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = ((1, HEADS, KEYS, DIM), (1, 2, KEYS, DIM), (1, 2, KEYS, DIM))
    q, k, v = (torch.randn(shape, **options) for shape in shapes)
    return q, k, v


# --- one look at the tensors ---------------------------------------------------------

SHAPES = ((1, HEADS, 3, 8), (1, 2, 5, 8), (1, 2, 5, 16))
Change = tuple[int, str, Any]
"""Which tensor, and its axis, dtype or device, and what it becomes."""

SIZES = (0, 1, 2, HEADS, 5, 8, 16, 32, 2**30, 2**30 + 1)
CHANGES: list[Change] = [
    (tensor, name, value)
    for tensor in range(3)
    for name, values in (
        *((str(axis), SIZES) for axis in range(4)),
        ("dim", (3, 5)),
        ("dtype", (torch.float64, torch.int32)),
        ("device", ("cpu",)),
    )
    for value in values
]
NARROWER: tuple[tuple[Any, Any, Any], ...] = (
    (None, None, None),
    (16, (torch.float32, torch.int32), "meta"),
    (8, None, "meta"),
    (None, (torch.float64,), None),
    (None, None, "cpu"),
)


def changed(changes: Sequence[Change]) -> list[Tensor]:
    """Expanded, and mostly on the meta device, so that none takes memory."""
    found = []
    for tensor, shape in enumerate(SHAPES):
        told = {name: value for at, name, value in changes if at == tensor}
        sizes = [told.get(str(axis), size) for axis, size in enumerate(shape)]
        sizes = {3: sizes[:3], 4: sizes, 5: [1, *sizes]}[told.get("dim", 4)]
        dtype = told.get("dtype", torch.float32)
        device = told.get("device", "meta")
        found.append(torch.empty((), dtype=dtype, device=device).expand(sizes))
    return found


def sees(qkv: Sequence[Tensor], narrower: tuple[Any, Any, Any]) -> tuple[bool, bool]:
    """What the look says of tensors, and what the checks say."""
    q, k, v = qkv
    look = checks._is_right(q, k, v, HEADS, 2, *narrower)
    try:
        checks._check_tensors("demo", q, k, v, HEADS, 2, *narrower)
    except (TypeError, ValueError):
        return look, False
    return look, True


def test_the_look_and_the_checks_agree() -> None:
    """For one change of right tensors, for any two, and for one that all three have."""
    pairs = [*itertools.combinations(CHANGES, 2), *((one,) for one in CHANGES)]
    alike = {(name, str(value)): (name, value) for _, name, value in CHANGES}
    triples = [tuple((at, *one) for at in range(3)) for one in alike.values()]
    found = set()
    for changes in ((), *pairs, *triples):
        huge = [at for at, name, size in changes if name in "0123" and size >= 2**30]
        if len(huge) > len(set(huge)):
            continue  # no tensor has that many elements
        qkv = changed(changes)
        for narrower in NARROWER:
            look, verdict = sees(qkv, narrower)
            assert look == verdict, (changes, narrower)
            found.add(look)
    assert found == {True, False}


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype:UserWarning")
@pytest.mark.parametrize(
    "made",
    [
        lambda x: None,
        lambda x: x.to_sparse(),
        lambda x: torch.nested.nested_tensor([x[0]]),
        lambda x: torch.nested.nested_tensor([x[0]], layout=torch.jagged),
    ],
    ids=["none", "sparse", "nested", "jagged"],
)
def test_the_look_finds_what_is_no_dense_tensor(made: Callable[[Tensor], Any]) -> None:
    q, k, v = tensors()
    assert checks._is_right(q, k, v, HEADS, 2, None, None, None)
    assert not checks._is_right(made(q), k, v, HEADS, 2, None, None, None)


# --- who watches sees the operator ---------------------------------------------------


class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [_Seen, _Functions])
@pytest.mark.parametrize("trained", [False, True])
def test_a_mode_sees_the_operators(
    attention: patternc.Attention, mode: Callable[[], Any], trained: bool
) -> None:
    q, k, v = tensors(requires_grad=trained)
    with mode() as seen:
        output = attention(q, k, v)
        if trained:
            torch.autograd.backward(output.sum())
    found = [name for name in seen.names if name.startswith("patternc.")]
    wanted = ["patternc.attention.default"]
    wanted += ["patternc.attention_backward.default"] if trained else []
    if mode is _Functions:  # autograd's own thread of work is none of its business
        assert found[:1] == wanted[:1]
    else:
        assert found == wanted


def test_a_profile_names_the_operator(attention: patternc.Attention) -> None:
    with torch.profiler.profile() as profile:
        attention(*tensors())
    assert "patternc::attention" in {item.key for item in profile.key_averages()}


@pytest.mark.filterwarnings("ignore")  # deprecated, and it traces the checks' numbers
def test_a_traced_graph_holds_the_operator(attention: patternc.Attention) -> None:
    traced = torch.jit.trace(  # type: ignore[no-untyped-call]
        lambda q, k, v: attention(q, k, v), tensors(), check_trace=False
    )
    assert "patternc::attention" in str(traced.graph)


def test_shapes_without_values_stay_so(attention: patternc.Attention) -> None:
    assert attention(*tensors(device="meta")).is_meta


def test_a_subclass_is_asked(attention: patternc.Attention) -> None:
    class Own(Tensor):
        seen: ClassVar[list[str]] = []

        @classmethod
        def __torch_function__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            cls.seen.append(str(func))
            return super().__torch_function__(  # type: ignore[no-untyped-call]
                func, types, args, kwargs or {}
            )

    q, k, v = tensors()
    attention(q.as_subclass(Own), k, v)
    assert "patternc.attention.default" in Own.seen


def test_a_negative_view_is_read_as_its_values(attention: patternc.Attention) -> None:
    q, k, v = tensors()
    negative = torch._neg_view(q)
    assert negative.is_neg()
    torch.testing.assert_close(attention(negative, k, v), attention(-q, k, v))


@pytest.mark.filterwarnings("ignore:.*jit.script:DeprecationWarning")
@pytest.mark.parametrize("trained", [False, True])
def test_dual_numbers_are_refused_and_not_dropped(
    attention: patternc.Attention, trained: bool
) -> None:
    q, k, v = tensors()
    with torch.set_grad_enabled(trained), forward_ad.dual_level():
        dual = forward_ad.make_dual(  # type: ignore[no-untyped-call]
            q, torch.ones_like(q)
        )
        with pytest.raises(NotImplementedError, match="forward mode AD"):
            attention(dual, k, v)


def test_no_one_watches_a_plain_call() -> None:
    q, k, v = tensors(requires_grad=True)
    assert not is_watched((q, torch.nn.Parameter(k), v))


@pytest.mark.parametrize("trained", [False, True])
def test_a_shortcut_gives_the_same_bits(
    attention: patternc.Attention, trained: bool
) -> None:
    def run() -> list[Tensor]:
        q, k, v = tensors(requires_grad=trained)
        output, lse = attention(q, k, v, return_lse=True)
        if not trained:
            return [output, lse]
        torch.autograd.backward(output.sum())
        return [output, lse, *(x.grad for x in (q, k, v) if x.grad is not None)]

    with _Seen():
        watched = run()
    found = run()
    assert len(found) == (5 if trained else 2)
    assert all(a.equal(b) for a, b in zip(found, watched, strict=True))


# --- how much Python runs ------------------------------------------------------------


class _Nothing:
    """A trainable backend that only makes its results."""

    def __call__(self, q: Tensor, *_: object, **__: object) -> Tensor:
        return q.new_empty(q.shape)

    def attend(self, q: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        return q.new_empty(q.shape), q.new_empty(q.shape[:3])

    def finish(self, out: Tensor, lse: Tensor, *_: object, **__: object) -> Any:
        return out, lse

    def gradients(self, q: Tensor, k: Tensor, *_: object, **__: object) -> Any:
        return q.new_empty(q.shape), k.new_empty(k.shape), k.new_empty(k.shape), {}

    def refuse_gradients(self, wanted: object) -> None:
        return None


@pytest.mark.parametrize(("trained", "most"), [(False, 75), (True, 115)])
def test_a_call_runs_few_functions(
    attention: patternc.Attention, trained: bool, most: int
) -> None:
    """Times differ from machine to machine; the calls that take them do not."""
    empty = patternc.Attention(attention.trace, "nothing")
    program = add_program(attention.kernel, "nothing", _Nothing())
    empty._loaded["nothing"] = program
    q, k, v = tensors(requires_grad=trained)
    empty(q, k, v)
    count = 0

    def look(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(look)
    try:
        empty(q, k, v)
    finally:
        sys.setprofile(None)
    assert 20 < count <= most

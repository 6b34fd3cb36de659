"""Plans: made, used again, saved, refused; and wrong numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from patternc.attention import Attention
from tests.selection.programs import attention

CLAUSES = """let probe = softmax(scores where causal for q >= N - 4)
    let columns = top(3, sum(probe by k), always k == 0)
    let blocks = top_p(0.8, mean(Q by q // 4) @ mean(K by k // 4) per q // 4)
    mask causal & (k in columns | (q // 4, k // 4) in blocks | q == k)"""


def drawn(n_q: int = 12, n_k: int = 16, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, 4, n_q, 8), (2, 2, n_k, 8), (2, 2, n_k, 8))
    q, k, v = (torch.randn(shape, generator=generator) for shape in shapes)
    return q, k, v


@pytest.fixture
def attn(tmp_path: Path) -> Attention:
    return attention(tmp_path, CLAUSES, "heads 4 kv 2")


def test_what_a_constant_rules_out_is_not_chosen(tmp_path: Path) -> None:
    clauses = """let few = top(1, sum(scores by k))
        let more = top(3, sum(scores by k))
        mask k in few if exact == 1 else k in more"""
    attn = attention(tmp_path, clauses, parameters="(exact = 1)")
    q, k = torch.randn(2, 1, 1, 4, 4)
    assert list(attn.plan(q, k).tables) == ["few"]


def test_a_call_plans_and_takes_a_plan(attn: Attention) -> None:
    q, k, v = drawn()
    plan = attn.plan(q, k)
    assert torch.equal(attn(q, k, v, plan=plan), attn(q, k, v))
    other, _, _ = drawn(seed=1)
    assert not torch.equal(attn(other, k, v, plan=plan), attn(other, k, v))


def test_backends_take_one_plan(attn: Attention) -> None:
    q, k, v = drawn()
    plan = attn.backend("reference").plan(q, k)
    outputs = [
        attn.backend(name)(q, k, v, plan=plan) for name in ("reference", "tiled")
    ]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    wide = attn.schedule(block_q=16, block_k=32)
    torch.testing.assert_close(wide(q, k, v, plan=plan), outputs[0])


def test_gradients_go_through_the_chosen_pairs_alone(attn: Attention) -> None:
    tensors = [x.double().requires_grad_() for x in drawn()]
    q, k, v = tensors
    plan = attn.plan(q, k)
    output = attn(q, k, v, plan=plan)
    visible = attn.mask(12, 16, plan=plan)
    keys, values = (x.repeat_interleave(2, 1) for x in (k, v))
    logits = (q @ keys.mT * 8**-0.5).masked_fill(~visible, -torch.inf)
    dense = torch.softmax(logits, -1) @ values
    found = torch.autograd.grad(output.square().sum(), tensors)
    wanted = torch.autograd.grad(dense.square().sum(), tensors)
    for mine, true in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, true)


def test_a_plan_is_saved_and_loaded(attn: Attention, tmp_path: Path) -> None:
    q, k, v = drawn()
    plan = attn.plan(q, k)
    plan.save(tmp_path / "kept.plan")
    kept = attn.load_plan(tmp_path / "kept.plan")
    assert torch.equal(attn(q, k, v, plan=kept), attn(q, k, v, plan=plan))
    assert kept.counts()["columns"].tolist() == [[3] * 4] * 2


def test_a_damaged_plan_is_refused(attn: Attention, tmp_path: Path) -> None:
    path = tmp_path / "kept.plan"
    attn.plan(*drawn()[:2]).save(path)
    whole = path.read_bytes()
    for data in (
        b"",
        b"something else",
        whole[:-1],
        whole + b"0",
        whole[:40],
        whole[:16] + (2**60).to_bytes(8, "little") + whole[24:],
        whole.replace(b'"n_q": 12', b'"n_q": 99'),
        whole.replace(b'"n_q": 12', b'"n_q": -2'),
        whole.replace(b'"batch": 2', b'"batch": []'),
        whole.replace(b'"float32"', b'"float99"'),
        whole.replace(b'"tables"', b'"cables"'),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="plan"):
            attn.load_plan(path)


def test_a_plan_of_another_program_is_refused(attn: Attention, tmp_path: Path) -> None:
    q, k, v = drawn()
    plan = attn.plan(q, k)
    plan.save(tmp_path / "kept.plan")
    other = attention(tmp_path, CLAUSES.replace("top(3", "top(4"), "heads 4 kv 2")
    with pytest.raises(ValueError, match="expected a plan of this program"):
        other(q, k, v, plan=plan)
    with pytest.raises(ValueError, match="expected a plan of this program"):
        other.load_plan(tmp_path / "kept.plan")


def test_a_plan_of_another_call_is_refused(attn: Attention) -> None:
    q, k, v = drawn()
    plan = attn.plan(q, k)
    longer = drawn(12, 20)
    with pytest.raises(ValueError, match="number of keys 16, and this call has 20"):
        attn(*longer, plan=plan)
    with pytest.raises(ValueError, match="number of queries 12"):
        attn(*drawn(8, 16), plan=plan)
    with pytest.raises(ValueError, match="q_offset 4, and this call has 3"):
        attn(q, k, v, plan=plan, q_offset=3)
    with pytest.raises(ValueError, match="batch size 2"):
        attn(q[:1], k[:1], v[:1], plan=plan)
    with pytest.raises(ValueError, match=r"dtype torch\.float32"):
        attn(q.double(), k.double(), v.double(), plan=plan)
    with pytest.raises(TypeError, match="expected a plan, got dict"):
        attn(q, k, v, plan={})  # type: ignore[call-overload]


def test_a_plan_of_other_parameters_is_refused(tmp_path: Path) -> None:
    clauses = "let best = top(n, scores per q)\nmask (q, k) in best & k < q + reach"
    parameters = "(n: runtime = 2, reach: runtime = 8)"
    attn = attention(tmp_path, clauses, "heads 4 kv 2", parameters)
    q, k, v = drawn()
    plan = attn.plan(q, k, n=3)
    attn(q, k, v, plan=plan, n=3, reach=4)  # the mask alone reads it
    with pytest.raises(ValueError, match="run-time parameters {'n': 3}"):
        attn(q, k, v, plan=plan)


def test_a_program_that_selects_nothing_has_no_plan(tmp_path: Path) -> None:
    attn = attention(tmp_path, "mask causal", "heads 4 kv 2")
    q, k, v = drawn()
    with pytest.raises(TypeError, match="selects nothing"):
        attn.plan(q, k)
    chooses = attention(tmp_path, CLAUSES, "heads 4 kv 2")
    with pytest.raises(TypeError, match="selects nothing"):
        attn(q, k, v, plan=chooses.plan(q, k))


def test_a_plan_is_looked_at(attn: Attention) -> None:
    plan = attn.plan(*drawn()[:2])
    mask = attn.mask(12, 16, plan=plan)
    assert mask.shape == (2, 4, 12, 16)
    assert torch.equal(plan.mask(3, batch=1), mask[1, 3])
    assert plan.density() == [int(one.sum()) / (12 * 16) for one in mask[0]]
    assert plan.draw(0).count("\n") > 5
    with pytest.raises(TypeError, match="expected a plan"):
        attn.mask(12, 16)


def test_inputs_that_only_selections_read_are_not_missed(tmp_path: Path) -> None:
    clauses = """input share[h] : float
        input seen[k] : bool
        let columns = top_p(share[h], sum(softmax(scores) by k))
        mask causal & k in columns"""
    attn = attention(tmp_path, clauses.replace("& k", "& seen[k] & k"), "heads 4 kv 2")
    q, k, _ = drawn()
    share, seen = torch.tensor([0.1, 0.5, 0.9, 1.0]), torch.ones(16, dtype=torch.bool)
    plan = attn.plan(q, k, share=share, seen=seen)
    with pytest.raises(ValueError, match="reads the input `seen`"):
        plan.mask(0)
    alone = attention(tmp_path, clauses, "heads 4 kv 2")
    plan = alone.plan(q, k, share=share, seen=seen)
    wanted = alone.mask(12, 16, plan=plan, seen=seen)
    assert torch.equal(plan.mask(2, batch=1), wanted[1, 2])


# --- wrong numbers


@pytest.mark.parametrize(
    ("clauses", "message"),
    [
        (
            "let some = top(N + 1, sum(scores by k))\nmask k in some",
            "expected 0 to 16 keys, got 17",
        ),
        (
            "let some = top(17, sum(scores by q - k))\nmask q - k in some",
            "expected 0 to 16",
        ),
        (
            "let some = top(5, sum(scores by k // 4))\nmask k // 4 in some",
            "expected 0 to 4",
        ),
        (
            "let some = top(N - 17, scores per q)\nmask (q, k) in some",
            "got -1: a budget counts",
        ),
        (
            "let some = above(0.1, scores per q, min 17)\nmask (q, k) in some",
            "`min`: expected",
        ),
        (
            "let some = above(0.1, scores per q, max 17)\nmask (q, k) in some",
            "`max`: expected",
        ),
        (
            "let some = top_p(N / 4.0, scores)\nmask (q, k) in some",
            "share from 0 to 1, got 4",
        ),
        (
            "let some = top_p(1 - N / 4.0, scores per q)\nmask (q, k) in some",
            "share from 0 to 1, got -3",
        ),
        (
            "let some = top(1, sum(scores for q >= N - 17 by k))\nmask k in some",
            r"its probe starts at query -1.*write `max\(N - 17, 0\)`",
        ),
        (
            "let some = top(1, sum(scores for q >= N by k))\nmask k in some",
            "none of the 12 rows",
        ),
        (
            "let some = top(1, sum(scores where q % 2 == 0 for q < 1 by k))\nmask k in some",
            "none of the 12 rows",
        ),
        (
            "input x[k] : int\nlet some = top(1, sum(scores by x[k]))\nmask x[k] in some",
            "bound it",
        ),
    ],
)
def test_wrong_numbers_are_errors(clauses: str, message: str, tmp_path: Path) -> None:
    attn = attention(tmp_path, clauses, "heads 4 kv 2")
    q, k, v = drawn()
    given: dict[str, Any] = (
        {"x": torch.zeros(16, dtype=torch.int64)} if "input" in clauses else {}
    )
    with pytest.raises(ValueError, match=message):
        attn(q, k, v, **given)
    with pytest.raises(ValueError, match=message):
        attn.plan(q, k, **given)


@pytest.mark.parametrize("backend", ["reference", "tiled", "triton"])
@pytest.mark.parametrize("choice", ["top(2, {})", "top_p(0.5, {})", "above(-9.0, {})"])
def test_a_scope_without_candidates_chooses_nothing(
    choice: str, backend: str, tmp_path: Path
) -> None:
    """Its rows see no key, and no row sees what is no candidate."""
    written = choice.format("softmax(scores where k < q - 6) per q")
    clauses = f"let some = {written}\nmask (q, k) in some"
    attn = attention(tmp_path, clauses, "heads 4 kv 2").backend(backend)
    q, k, v = drawn()
    plan = attn.plan(q, k)
    seen = attn.mask(12, 16, plan=plan)
    rows = torch.arange(12)[:, None] + 4
    assert not bool((seen & (torch.arange(16) >= rows - 6)).any())
    assert not bool(seen[:, :, :3].any()) and bool(seen[:, :, 3:].any(-1).all())
    out, lse = attn(q, k, v, plan=plan, return_lse=True)
    assert not bool(out[:, :, :3].any()) and bool((lse[:, :, :3] == -torch.inf).all())
    assert bool(lse[:, :, 3:].isfinite().all())


def test_budgets_that_say_so_are_cut(tmp_path: Path) -> None:
    clauses = """let some = top(min(99, N), sum(scores for q >= max(N - 64, 0) by k))
        mask k in some"""
    attn = attention(tmp_path, clauses, "heads 4 kv 2")
    q, k, _ = drawn()
    assert bool(attn.plan(q, k).tables["some"].all())


def test_nan_is_found_on_request(attn: Attention) -> None:
    q, k, v = drawn()
    q[1, 2, -1, 0] = torch.nan
    attn(q, k, v)  # in the order that the language defines
    with pytest.raises(ValueError, match="`columns`.*NaN at batch element 1, head 2"):
        attn.plan(q, k, check=True)
    with pytest.raises(ValueError, match="NaN at batch element 1"):
        attn(q, k, v, check=True)


def test_calls_without_pairs_choose_nothing(attn: Attention) -> None:
    for n_q, n_k in ((0, 16), (12, 0), (0, 0)):
        q, k, v = drawn(n_q, n_k)
        assert attn(q, k, v).shape == q.shape
    none = torch.zeros(0, 4, 12, 8), torch.zeros(0, 2, 16, 8), torch.zeros(0, 2, 16, 8)
    assert attn(*none).shape == (0, 4, 12, 8)

"""`else dense when cheaper`, and what `explain` says of selections."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from patternc import driver, stdlib_patterns
from patternc.attention import Attention
from patternc.check import lower
from patternc.diagnostics import PatternError
from patternc.explain import as_text, explain
from patternc.ir.map_text import print_selection
from patternc.ir.selected import dense_alternative
from patternc.plan.cheaper import costs, crossover
from patternc.plan.measured import CHOOSING
from patternc.plan.prices import SHORT
from patternc.source import Source
from patternc.syntax.parse import parse
from tests.selection.programs import attention

COLUMNS = "let columns = top(min(64, N), sum(scores for q >= max(N - 8, 0) by k))\n"
SLASHES = """let probe = softmax(scores where causal for q >= N - 64)
    let columns = top(1000, sum(probe by k), always k < 30)
    let slashes = top(6096, sum(probe by q - k), always q - k < 100)
    mask causal & (k in columns | q - k in slashes)"""


def text_of(clauses: str) -> str:
    return f"attention chooses {{\nheads 32 kv 8\n{clauses}\n}}\n"


def test_a_short_call_is_dense_where_the_program_says_so(tmp_path: Path) -> None:
    short = f"{COLUMNS}mask causal & k in columns"
    allowed = attention(tmp_path, f"{short} else dense when cheaper", "heads 2 kv 1")
    never = attention(tmp_path, short, "heads 2 kv 1")
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 2, 100, 16, generator=generator)
    k, v = torch.randn(2, 1, 1, 100, 16, generator=generator)
    dense = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True
    )
    assert allowed.is_dense(100, 100, 0)
    torch.testing.assert_close(allowed(q, k, v), dense)
    assert not never.is_dense(100, 100, 0)
    assert not torch.allclose(never(q, k, v), dense)
    # A plan is always used, and a long call always chooses.
    plan = allowed.plan(q, k)
    torch.testing.assert_close(allowed(q, k, v, plan=plan), never(q, k, v))
    assert not allowed.is_dense(2**20, 2**20, 0)
    with pytest.raises(ValueError, match="no `else dense when cheaper`"):
        never.dense()


def test_heads_without_permission_choose() -> None:
    clauses = f"""{COLUMNS}mask causal & k in columns else dense when cheaper for h < 2
        mask k in columns otherwise"""
    found = lower(parse(Source("x.pat", text_of(clauses))))
    assert dense_alternative(found) is None
    first, second = found.dense_cases
    assert first.mask != found.cases[0].mask
    assert second.mask == found.cases[1].mask


def test_density_follows_the_budgets() -> None:
    found = lower(parse(Source("x.pat", text_of(SLASHES))))
    price = costs(found, 2**17, 2**17, 0, ())
    assert price.dense_density == pytest.approx(0.5, abs=0.02)
    # Half of (1000 + 6096) / N, as a row sees the columns and diagonals before it.
    assert price.density == pytest.approx(0.027, rel=0.1)
    assert price.scattered > 0.4  # MInference: 0.98 of the causal tiles
    assert not price.is_dense_cheaper
    assert costs(found, 4096, 4096, 0, ()).is_dense_cheaper


@pytest.mark.parametrize("length", [4096, 8192, 16384])
@pytest.mark.parametrize(
    "file", ["vertical_slash", "moba", "flexprefill", "xattention"]
)
def test_short_calls_of_published_choices_are_dense(file: str, length: int) -> None:
    source = Source(f"{file}.pat", stdlib_patterns.text(file))
    attention = driver.trace_source(source, file).kernel.attention
    assert costs(attention, length, length, 0, ()).is_dense_cheaper


def test_a_short_call_chooses_where_it_clearly_wins() -> None:
    blocks = """let coarse = mean(Q by q // 128) @ mean(K by k // 128)
        let best = top({}, coarse per q // 128)
        mask causal & (q // 128, k // 128) in best"""
    few, many = (
        lower(parse(Source("x.pat", text_of(blocks.format(n))))) for n in (8, 60)
    )
    assert not costs(few, 16384, 16384, 0, ()).is_dense_cheaper
    assert costs(many, 16384, 16384, 0, ()).is_dense_cheaper
    assert costs(few, 16384, 16384, 0, (), head_dim=64).is_dense_cheaper
    slower = replace(CHOOSING[0], launches_ms=3.0)
    assert costs(few, 16384, 16384, 0, (), slower).is_dense_cheaper


def test_a_short_call_counts_on_keys_that_lie_apart() -> None:
    few = """let probe = softmax(scores where causal for q >= N - 64)
        let slashes = top(64, sum(probe by q - k))
        mask causal & q - k in slashes"""
    attention = lower(parse(Source("x.pat", text_of(few))))
    free = replace(CHOOSING[0], launches_ms=0.0, alone_ps=0.0)
    assert costs(attention, SHORT, SHORT, 0, (), free).is_dense_cheaper is False
    costly = replace(free, tile_ps=4 * free.tile_ps)
    assert costs(attention, SHORT, SHORT, 0, (), costly).is_dense_cheaper
    assert not costs(attention, SHORT + 1, SHORT + 1, 0, (), costly).is_dense_cheaper


def test_nothing_is_planned_for_a_dense_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clauses = f"{COLUMNS}mask causal & k in columns else dense when cheaper"
    attn = attention(tmp_path, clauses, "heads 2 kv 1")
    q, k = torch.randn(1, 2, 50, 8), torch.randn(1, 1, 50, 8)

    def refuse(*_: object) -> None:
        raise AssertionError("planned")

    monkeypatch.setattr("patternc.attention.made_plan", refuse)
    assert attn(q, k, k).shape == q.shape
    monkeypatch.setattr(Attention, "is_dense", lambda *_, **__: False)
    with pytest.raises(AssertionError, match="planned"):
        attn(q, k, k)


def test_the_crossover_is_where_the_choice_changes() -> None:
    attention = lower(parse(Source("x.pat", text_of(SLASHES))))
    found = crossover(attention, ())
    assert found is not None and 16384 < found < 131072
    assert not costs(attention, found, found, 0, ()).is_dense_cheaper
    less = found * 7 // 8
    assert costs(attention, less, less, 0, ()).is_dense_cheaper
    slow = replace(CHOOSING[0], line_ps=1e6)
    assert crossover(attention, (), slow) is None


def test_explain_says_by_which_lists_each_pass_goes() -> None:
    def told(clauses: str) -> str:
        trace = driver.trace_source(Source("x.pat", text_of(clauses)))
        return as_text(explain(trace))

    both = "heads {0..31}: chosen diagonals and columns, forward and backward"
    assert both in told(SLASHES)
    bias = f"{SLASHES}\ninput bias[h, k] : float\nscore s + bias[h, k]"
    assert "chosen diagonals and columns, forward only" in told(bias)
    assert "backward by lists of tiles, as the gradient of `bias`" in told(bias)
    single = "let best = top(4, scores per q)\nmask (q, k) in best"
    assert "lists of tiles, forward and backward; they have room" in told(single)
    documents = "input doc[k] : int\nmask doc[q] == doc[k]"
    assert "their length is waited for" in told(documents)


def test_explain_says_what_is_selected_and_where_it_does_not_pay() -> None:
    trace = driver.trace_source(Source("x.pat", text_of(SLASHES)))
    told = as_text(explain(trace))
    probe = "softmax(scores where k <= q & q >= N - 64)"
    for line in (
        f"columns = top(1000, sum({probe} by k), always k < 30)",
        "for each head",
        "warning: at N = 16384 and below this costs more than a dense mask",
        "warning: at N = 524288 keys that lie apart reach",
        "; up to N = 131072 dense would be faster",
        "choosing pays from about N = ",
    ):
        assert line in told
    allowed = Source("x.pat", text_of(SLASHES + " else dense when cheaper"))
    told = as_text(explain(driver.trace_source(allowed)))
    assert "  dense\n" in told
    assert "costs more than a dense mask" not in told


@pytest.mark.parametrize(
    "selection",
    [
        "top(3, mean(Q by q // 4) @ mean(K by k // 4) per q // 4 over g, max 2)",
        "top_p(0.5, scores where k <= q per (q, k), min 1, crossing drop)",
        "above(0.1, abs(-sum(scores by q - k)), always q - k < 4)",
        "entropy(softmax(scores * scale) by k over h) >= 0.5",
        "max(norm(K) + 2, 1 / sqrt(norm(K))) < 1",
        "top(2, x[h, q // 2, k] per k)",
    ],
)
def test_selections_are_printed_as_they_could_be_written(selection: str) -> None:
    clauses = "input x[h, q // 2, k] : float\nlet chosen = {}\nmask {} in chosen"

    def printed(text: str) -> str:
        for keys in ("k", "(q // 4, k // 4)", "(q, k)", "q - k", "(q // 2, k)"):
            source = Source("x.pat", text_of(clauses.format(text, keys)))
            try:
                return print_selection(lower(parse(source)).selections[0])
            except PatternError:
                continue  # another number of keys
        raise AssertionError(text)

    once = printed(selection)
    assert printed(once) == once
    assert once.split("(")[0] == selection.split("(")[0]


def test_maps_that_double_are_refused() -> None:
    """Each let names the one before it twice: 2**40 operations, written out."""
    lets = ["let a0 = sum(scores by k)"]
    lets += [f"let a{at} = a{at - 1} + a{at - 1}" for at in range(1, 41)]
    lets += ["let chosen = top(1, a40)", "mask k in chosen"]
    with pytest.raises(PatternError, match="this map grows beyond 20000 operations"):
        lower(parse(Source("x.pat", text_of("\n".join(lets)))))


def test_a_dense_call_takes_sequences(tmp_path: Path) -> None:
    clauses = f"{COLUMNS}mask causal & k in columns else dense when cheaper"
    attn = attention(tmp_path, clauses, "heads 2 kv 1")
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 2, 30, 16, generator=generator)
    k = torch.randn(1, 1, 30, 16, generator=generator)
    out = attn(q, k, k, lengths=torch.tensor([5]))
    assert not out[:, :, 5:].any() and out[:, :, :5].any()

"""`else dense when cheaper`, and what `explain` says of selections."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from patternc import driver
from patternc.check import lower
from patternc.diagnostics import PatternError
from patternc.explain import as_text, explain
from patternc.ir.map_text import print_selection
from patternc.plan.cheaper import costs
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
    assert driver.dense_alternative(found) is None
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


def test_explain_says_what_is_selected_and_where_it_does_not_pay() -> None:
    trace = driver.trace_source(Source("x.pat", text_of(SLASHES)))
    told = as_text(explain(trace))
    probe = "softmax(scores where k <= q & q >= N - 64)"
    for line in (
        f"columns = top(1000, sum({probe} by k), always k < 30)",
        "for each head",
        "warning: at N = 16384 and below this costs more than a dense mask",
        "warning: at N = 524288 keys that lie apart reach",
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

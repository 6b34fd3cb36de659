"""NaN and infinities: as in SDPA where a row sees them, and nowhere else."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from patternc import driver
from patternc.backends.protocol import Backend
from patternc.backends.reference import ReferenceBackend, mask_tensor
from patternc.backends.tiled import TiledBackend
from patternc.backends.triton.emit import emit
from patternc.backends.triton.load import TritonBackend, import_file
from patternc.plan.kernel import Kernel, Schedule
from patternc.source import Source
from patternc.store import Store
from tests.backends.triton import data_programs
from tests.backends.triton.programs import kernel_of, module_of

# The interpreter computes with numpy, which warns of what is tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning"),
]

N_Q, N_K, OFFSET = 60, 90, 20
NAN, INF = torch.nan, torch.inf

SPOILED = {
    "a hidden value": ("v", 85, NAN),  # beyond the last query, and no tile is full
    "a value": ("v", 40, NAN),
    "an infinite value": ("v", 33, INF),
    "a negative infinite value": ("v", 64, -INF),
    "a hidden key": ("k", 85, NAN),
    "a key": ("k", 50, NAN),
    "an infinite key": ("k", 50, INF),
    "a query": ("q", 17, NAN),
    "an infinite query": ("q", 17, INF),
}


def tensors(kernel: Kernel) -> dict[str, Tensor]:
    """Seeded normal q, k and v with D = 16 and D_v = 24."""
    generator = torch.Generator().manual_seed(5)
    heads, kv = kernel.attention.heads, kernel.attention.kv_heads
    shapes = {"q": (heads, N_Q, 16), "k": (kv, N_K, 16), "v": (kv, N_K, 24)}
    return {
        name: torch.randn(1, *shape, generator=generator)
        for name, shape in shapes.items()
    }


def by_definition(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor
) -> tuple[Tensor, Tensor]:
    """Row by row, over the keys that a row sees and no other; a dense SDPA of each."""
    share = q.shape[1] // k.shape[1]
    output = torch.zeros(*q.shape[:3], v.shape[3], dtype=torch.float64)
    lse = torch.full(q.shape[:3], -INF, dtype=torch.float64)
    for head in range(q.shape[1]):
        keys, values = k[0, head // share].double(), v[0, head // share].double()
        for row in range(q.shape[2]):
            seen = visible[head, row]
            logits = (keys[seen] * q[0, head, row].double()).sum(-1) / 4
            if bool((logits != -INF).any()):
                shares = logits.softmax(-1)
                output[0, head, row] = (shares[:, None] * values[seen]).sum(0)
                top = logits.max()
                lse[0, head, row] = top + (logits - top).exp().sum().log()
    return output, lse


@pytest.mark.parametrize("backend", ["reference", "tiled", "triton"])
@pytest.mark.parametrize("name", ["window", "mixed"])
def test_as_the_definition_says(name: str, backend: str, tmp_path: Path) -> None:
    kernel = kernel_of(name)
    params = {item.name: item.default or 0 for item in kernel.attention.params}
    visible = mask_tensor(kernel.attention, N_Q, N_K, OFFSET, params)
    backends: dict[str, Backend] = {
        "reference": ReferenceBackend(),
        "tiled": TiledBackend(),
        "triton": TritonBackend(Store(tmp_path)),
    }
    loaded = backends[backend].load(kernel)
    for argument, place, value in SPOILED.values():
        own = tensors(kernel)
        own[argument][0, -1, place, 3] = value
        wanted = by_definition(own["q"], own["k"], own["v"], visible)
        q, k, v = own.values()
        found = loaded(
            q, k, v, scale=0.25, q_offset=OFFSET, params=params, return_lse=True
        )
        for mine, exact in zip(found, wanted, strict=True):
            torch.testing.assert_close(
                mine.double(), exact, atol=1e-5, rtol=1e-5, equal_nan=True
            )


def test_without_the_second_launch_a_hidden_value_comes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the tests above can fail."""
    module = module_of("window", tmp_path)
    own = tensors(kernel_of("window"))
    own["v"][0, 0, 40, 3] = NAN
    spoiled = {True: int(module.forward(**own, q_offset=OFFSET).isnan().sum())}
    start = module.start

    def once(*arguments: Any) -> None:
        if arguments[-1][-1] != "exact":
            start(*arguments)

    monkeypatch.setattr(module, "start", once)
    spoiled[False] = int(module.forward(**own, q_offset=OFFSET).isnan().sum())
    assert 0 < spoiled[True] < spoiled[False]


@pytest.mark.parametrize("form", ["none", "packed"])
def test_programs_that_look_after_many_tiles(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first, the last and a middle group of tiles; their number is no multiple."""
    text = "attention one { heads 1 mask causal & window(8) }"
    kernel = driver.compile_source(
        Source("one.pat", text), None, {}, Schedule(16, 16, 4, 1)
    )
    path = Store(tmp_path).put(emit(kernel, text, "one"), "one", ".py")
    module = import_file(path)
    n = 16 * (2 * module.EXACT_TILES + 5)
    generator = torch.Generator().manual_seed(8)
    q = torch.randn(1, module.HEADS, n, 16, generator=generator)
    k, v = torch.randn(2, 1, module.KV_HEADS, n, 16, generator=generator)
    for place in (3, n // 2, n - 2):
        v[0, 0, place, 3] = NAN
    named: dict[str, Any] = {}
    parts = [n]
    if form == "packed":
        parts = [n - 40, 40]
        ends = torch.tensor([0, n - 40, n], dtype=torch.int32)
        named = {"cu_seqlens": ends, "max_seqlen": n - 40}
    starts = []
    start = module.start

    def noted(kernel: Any, programs: int, *more: Any) -> None:
        starts.append(programs)
        start(kernel, programs, *more)

    monkeypatch.setattr(module, "start", noted)
    output = module.forward(q, k, v, **named)
    each = zip(*(x.split(parts, 2) for x in (q, k, v)), strict=True)
    wanted = torch.cat([module.reference(*own) for own in each], 2)
    torch.testing.assert_close(output, wanted, atol=2e-5, rtol=2e-5, equal_nan=True)
    assert bool(output.isnan().any())
    assert starts[1] == 3 * len(parts) < starts[0]


class Allocations(TorchDispatchMode):
    """The numbers of bytes that were asked for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[int] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if "empty" in func.__name__ or "zeros" in func.__name__:
            self.found.append(made.nbytes)
        return made


@pytest.mark.parametrize("name", ["window", "everything"])
def test_a_call_allocates_its_results_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients beside them: what each row has in common, and the LSE's own, of 0."""
    module = module_of(name, tmp_path)
    monkeypatch.setattr(module, "start", lambda *given: None)
    launchers: Any = defaultdict(lambda: lambda *given, **options: None)
    monkeypatch.setattr(module, "delta_kernel", launchers)
    own = tensors(kernel_of(name))
    with Allocations() as allocations:
        output, lse = module.forward(**own, q_offset=OFFSET, return_lse=True)
    assert allocations.found == [output.nbytes, lse.nbytes]
    values = (*own.values(), output, lse, output, None)
    with Allocations() as allocations:
        found = module.gradients(*values, q_offset=OFFSET)
    tiles = (OFFSET + N_Q - 1) // module.BLOCK_Q - OFFSET // module.BLOCK_Q + 1
    rows = lse.nbytes // N_Q * tiles * module.BLOCK_Q
    wanted = [*(x.nbytes for x in found[:3]), lse.nbytes, rows, rows]
    assert allocations.found == wanted


@pytest.mark.parametrize("name", ["alibi", "weights", "sinks", "clusters", "outputs"])
def test_programs_with_data_agree(name: str, tmp_path: Path) -> None:
    """Weights without a sum, sinks, scores and orders; the module and the reference."""
    kernel = data_programs.kernel_of(name)
    module = data_programs.module_of(name, tmp_path)
    generator = torch.Generator().manual_seed(6)
    heads, kv = kernel.attention.heads, kernel.attention.kv_heads
    q, k, v = (
        torch.randn(2, count, 80, 16, generator=generator) for count in (heads, kv, kv)
    )
    v[0, 0, 37, 2], v[1, 0, 70, 1], k[1, -1, 50, 4] = NAN, INF, NAN
    given = data_programs.inputs_of(name, 80, 80, 0)
    output = module.forward(q, k, v, **given)
    wanted = module.reference(q, k, v, **given)
    assert bool(wanted.isnan().any()) and bool(wanted.isfinite().any())
    torch.testing.assert_close(output, wanted, atol=2e-5, rtol=2e-5, equal_nan=True)

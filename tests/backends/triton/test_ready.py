"""What comes before a first result: Triton's own start, and lists made on the host."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from patternc import backends
from patternc.backends.triton import ready
from tests.backends.triton.data_programs import module_of


def test_triton_gets_ready_beside_what_the_block_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both parts run in other threads, once, are over at its end, and raise nothing."""
    begun, may_end = threading.Barrier(3, timeout=60), threading.Event()
    ended: list[int] = []

    def part() -> None:
        begun.wait()
        may_end.wait(60)
        ended.append(threading.get_ident())
        raise RuntimeError("no compiler")

    monkeypatch.setattr(ready, "triton_key", part)
    monkeypatch.setattr(ready, "start_driver", part)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    ready.get_ready.cache_clear()
    backends.get_ready("triton")
    with ready.getting_ready():
        begun.wait()
        assert ended == []
        may_end.set()
    assert len(ended) == 2
    assert threading.get_ident() not in ended
    ready.get_ready.cache_clear()


def test_nothing_is_started_before_cuda_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor for a backend without Triton."""

    def part() -> None:
        raise AssertionError("started")

    monkeypatch.setattr(ready, "get_ready", part)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    with ready.getting_ready():
        pass
    backends.get_ready()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    backends.get_ready("tiled")
    with pytest.raises(AssertionError, match="started"):
        backends.get_ready()


def test_little_lists_are_made_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And lie on the device of the call: here one that could not have made them."""
    module = module_of("documents", tmp_path)
    doc = (torch.arange(90, dtype=torch.int32) // 20)[None]
    meta = torch.device("meta")

    def lists(device: torch.device) -> list[Tensor]:
        inputs = {"doc": doc}
        found = module.tile_lists(1, 90, 90, 0, {}, inputs, False, device)
        assert found[-1] == 0
        return list(found[:-1])

    here, there = lists(torch.device("cpu")), lists(meta)
    assert [x.device for x in there] == [meta] * len(there)
    assert [(x.shape, x.dtype) for x in there] == [(x.shape, x.dtype) for x in here]
    module.LISTS.clear()
    monkeypatch.setattr(module, "is_little", lambda *_: False)
    with pytest.raises((NotImplementedError, RuntimeError)):
        lists(meta)


def test_what_is_little_counts_tokens_heads_and_elements(tmp_path: Path) -> None:
    module = module_of("documents", tmp_path)
    most = module.LITTLE
    third = most // 3
    docs = {"doc": torch.zeros(1, third, dtype=torch.int32)}
    assert module.is_little(third, third, docs, False)
    assert not module.is_little(third, third + 3, docs, False)
    assert not module.is_little(9, 9, {"doc": torch.zeros(1, most)}, False)
    assert not module.is_little(third, third, {"doc": torch.zeros(2, third)}, False)
    each = module_of("head_table", tmp_path)
    lists = sum(len(each.together(x["heads"], x["alike"])) for x in each.LISTED)
    assert lists > 1
    assert each.is_little(most // lists // 2, most // lists // 2, {}, False)
    assert not each.is_little(most // lists, most // lists, {}, False)

"""The examples are accepted, agree with their schedules, and run."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from patternc import driver
from patternc.check import lower
from patternc.cli.inputs import Call, Table, axis_size
from patternc.ir.evaluate import dense_mask
from patternc.ir.nodes import Attention, Element
from patternc.plan.expand import plan_mask
from patternc.source import Source
from patternc.syntax import ast
from patternc.syntax.load import read_source
from patternc.syntax.parse import parse

EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAMS = sorted(EXAMPLES.rglob("*.pat"))
ENTRIES = [
    pytest.param(path, item.name.text, id=f"{path.stem}-{item.name.text}")
    for path in PROGRAMS
    for item in parse(read_source(path)).items
    if isinstance(item, ast.Attention)
]


def test_there_are_examples_of_every_kind() -> None:
    names = {path.name for path in PROGRAMS}
    assert {
        "01_causal.pat",
        "08_inputs.pat",
        "phi3_small.pat",
        "duo.pat",
        "a_shape.pat",
    } <= names
    assert {path.name for path in (EXAMPLES / "smollm2").iterdir()} <= names


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_every_example_is_accepted_without_a_warning(path: Path) -> None:
    assert driver.check_source(read_source(path)) == ()


@pytest.mark.parametrize("path, entry", ENTRIES)
def test_every_assert_of_an_example_is_proved(path: Path, entry: str) -> None:
    trace = driver.trace_source(read_source(path), entry)
    assert all(decision.holds is True for decision in trace.decisions)


@pytest.mark.parametrize("path, entry", ENTRIES)
def test_the_schedule_gives_the_mask(path: Path, entry: str) -> None:
    kernel = driver.compile_source(read_source(path), entry)
    meaning = lower(parse(read_source(path)), entry)
    params = {p.name: p.default for p in meaning.params if p.default is not None}
    heads = {0, meaning.heads // 2, meaning.heads - 1} - set(meaning.skipped)
    for call in calls_of(meaning):
        tables = tables_for(meaning, call)
        for head in heads:
            mask = meaning.case_of(head).mask
            sizes = (call.n_q, call.n_k, call.q_offset)
            expected = dense_mask(mask, head, *sizes, params, tables)
            found = plan_mask(kernel, head, *sizes, params, tables)
            np.testing.assert_array_equal(found, expected)


def calls_of(attention: Attention) -> list[Call]:
    """Sizes to try: those of the layout, if there is one."""
    if attention.layout is not None:
        n = attention.layout.size
        return [Call(n, n, 0), Call(65, n, n - 65)]
    sizes = [(1, 1), (65, 200), (200, 63), (512, 512)]
    return [Call(n_q, n_k, at) for n_q, n_k in sizes for at in {n_k - n_q, 37}]


def tables_for(attention: Attention, call: Call) -> dict[str, Table]:
    """Seeded values for the inputs that masks read."""
    generator = np.random.default_rng(call.n_q + call.n_k)
    tables: dict[str, Table] = {}
    for item in attention.inputs:
        shape = [axis_size(axis, attention, call) for axis in item.axes]
        if item.element is Element.BOOL:
            tables[item.name] = generator.random(shape) < 0.4
        elif item.element is Element.INT:
            values = generator.integers(0, 4, shape)
            tables[item.name] = np.sort(values) if item.is_sorted else values
    return tables


# A wrong variant of each claim: the text that is replaced, by what, and the words that
# the diagnostic must show.
WRONG = [
    ("phi3_small.pat", "(k + h + 1) % vert == 0", "(k + 1) % vert == 0", "union"),
    ("phi3_small.pat", "causal & strided", "strided", "within causal"),
    ("03_streaming.pat", "streaming(sinks, recent)", "sink(sinks) & k > 0", "every q"),
    ("duo.pat", "streaming(sink, recent)", "streaming(sink + 1, recent)", "retention"),
    ("a_shape.pat", "0.07", "0.03", "density"),
]


@pytest.mark.parametrize("name, right, wrong, words", WRONG)
def test_a_wrong_variant_is_refused(
    name: str, right: str, wrong: str, words: str
) -> None:
    text = (EXAMPLES / name).read_text()
    assert right in text
    found = driver.check_source(Source(name, text.replace(right, wrong)))
    errors = [item for item in found if item.is_error]
    assert errors
    assert any(words in item.span.text for item in errors)


def test_calling_from_python_works(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "call_from_python.py"))
    shown = capsys.readouterr().out
    assert "decoding agrees: True" in shown
    assert "for kt in range(" in shown


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    """The demo as a module; it does nothing until its `main` is called."""
    spec = importlib.util.spec_from_file_location("demo", EXAMPLES / "demo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _small_layer(demo: ModuleType) -> object:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 9, 100, 64, generator=generator)
    k, v = torch.randn(2, 1, 3, 100, 64, generator=generator).unbind()
    return demo.Layer("layer0", q, k, v)


def test_the_demo_measures_what_it_says(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "OUT", tmp_path)
    layer = _small_layer(demo)
    weights = demo.true_weights(layer)
    torch.testing.assert_close(weights.sum(-1), torch.ones(9, 100))
    program = demo.compile_program(EXAMPLES / "smollm2" / "duo.pat", "duo", 100)
    assert demo.kept_mass(program.mask, weights) == pytest.approx([1.0] * 9)
    nothing = torch.zeros_like(program.mask)
    assert demo.kept_mass(nothing, weights) == [0.0] * 9
    assert demo.verify(program.attention, layer, demo.double(layer)).holds
    demo.draw(program, weights, tmp_path / "duo.png")
    assert {path.name for path in tmp_path.iterdir()} == {"duo.png", "duo.py"}


def test_the_demo_sees_a_wrong_result(demo: ModuleType, tmp_path: Path) -> None:
    layer = _small_layer(demo)

    class Shifted:
        """An attention whose tiled result is slightly off."""

        def __call__(self, q: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            return q + 1e-4

        def backend(self, name: str) -> object:
            return lambda q, *_: q

    assert not demo.verify(Shifted(), layer, demo.double(layer)).holds
    assert not demo.Verdict(float("nan"), 1.0).holds


def test_recall_rises_with_the_budget() -> None:
    """On 256 random tokens: the table, the plot and the drawing have every point."""
    spec = importlib.util.spec_from_file_location("recall", EXAMPLES / "recall.py")
    assert spec is not None and spec.loader is not None
    recall = importlib.util.module_from_spec(spec)
    sys.modules["recall"] = recall  # dataclasses look their module up
    spec.loader.exec_module(recall)
    generator = torch.Generator().manual_seed(0)
    q, k = (2 * torch.randn(1, 1, 256, 32, generator=generator) for _ in range(2))
    points = recall.measure({"one": (q, k)})
    for selector in recall.MARKS:
        own = [point for point in points if point.selector == selector]
        assert len(own) >= 3
        kept = [point.recall for point in own]
        assert kept == sorted(kept) and kept[0] > 0 and kept[-1] <= 1 + 1e-6
        assert all(point.density <= 0.51 for point in own)
    weights = recall.attention_of(q, k)
    everything = torch.ones(1, 256, 256, dtype=torch.bool)
    whole = recall.point("one", "all", "all", everything, weights)
    assert whole.recall == pytest.approx(1) and whole.density == 1
    assert len(recall.table(points).splitlines()) == 1 + len(points)
    assert set(recall.MARKS.values()) <= set(recall.terminal_plot(points))
    drawing = ElementTree.fromstring(recall.svg(points))
    assert len(list(drawing.iter("{http://www.w3.org/2000/svg}circle"))) == len(points)

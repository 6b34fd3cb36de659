"""The text of a kernel module."""

from __future__ import annotations

import ast
import importlib.util
import io
import subprocess
import sys
import tokenize
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from patternc.backends.triton.emit import emit
from patternc.ir.nodes import RuntimeParam
from patternc.plan.kernel import Schedule
from patternc.source import Source, Span
from tests.backends.triton.programs import PROGRAMS, kernel_of, module_of, text_of
from tests.formatting import assert_formatted

GOLDEN = Path(__file__).with_name("golden") / "window.py.txt"
EVIL = (
    "x = 1\r\x0b\x0c\x85\u2028import os\nattention e { # \u202e\x1b[2J\ud800 \"\"\" '''"
)


def test_one_module_is_as_it_was() -> None:
    """To accept a change: write `text_of("window", Schedule())` to the file."""
    assert text_of("window", Schedule()) == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PROGRAMS)
def test_text_is_formatted_and_the_same_each_time(name: str) -> None:
    text = text_of(name)
    assert text == text_of(name)
    assert_formatted(text)


@pytest.mark.parametrize("name", PROGRAMS)
def test_imports_torch_and_triton_only(name: str) -> None:
    allowed = {"torch", "triton", *sys.stdlib_module_names}
    for node in ast.walk(ast.parse(text_of(name))):
        if isinstance(node, ast.Import):
            assert {item.name.split(".")[0] for item in node.names} <= allowed
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] in allowed


def test_the_pattern_is_shown_at_each_range_and_mask() -> None:
    lines = [line.strip() for line in text_of("duo").splitlines()]
    line = "# duo.pat:3: mask causal                   for g in {0, 2}"
    # Its ranges and its rule in three kernels, the dense definition.
    assert lines.count(line) == 7
    at = lines.index(line)
    assert lines[at + 1] == "# heads {0..1, 4..5}"
    assert lines[at + 2].startswith("# partial: kt in range(")


def test_user_text_stands_in_comments_alone() -> None:
    kernel = kernel_of("duo")
    source = Source("../evil\n name.pat", EVIL)
    spans = Span(source, 0, len(EVIL))
    covers = tuple(
        replace(
            cover,
            span=spans,
            ranges=tuple(replace(part, span=spans) for part in cover.ranges or ()),
        )
        for cover in kernel.covers
    )
    text = emit(replace(kernel, covers=covers), EVIL, "evil")
    plain = emit(kernel, PROGRAMS["duo"], "evil")
    assert all(char.isprintable() or char == "\n" for char in text)
    assert _code(text) == _code(plain)


def _code(text: str) -> list[str]:
    """The tokens, less comments, newlines between them and the source's hash."""
    skipped = (tokenize.COMMENT, tokenize.NL)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    kept = [token.string for token in tokens if token.type not in skipped]
    return [token for token in kept if len(token) != 66]


def test_names_must_be_identifiers() -> None:
    kernel = kernel_of("causal")
    with pytest.raises(ValueError, match="not an identifier"):
        emit(kernel, "", 'x"""\nimport os')
    attention = replace(kernel.attention, params=(RuntimeParam("a b", 1),))
    with pytest.raises(ValueError, match="not an identifier"):
        emit(replace(kernel, attention=attention), "", "x")


def test_metadata_says_what_was_compiled(tmp_path: Path) -> None:
    module = module_of("duo", tmp_path)
    data = module.METADATA
    assert (data["name"], data["heads"], data["kv_heads"]) == ("duo", 6, 3)
    assert data["params"] == {"recent": 30}
    assert data["schedule"] == {
        "block_q": 32,
        "block_k": 32,
        "warps": 4,
        "stages": 2,
    }
    assert [group["heads"] for group in data["groups"]] == ["{0..1, 4..5}", "{2..3}"]
    listed = module_of("listed", tmp_path).METADATA["groups"][0]
    assert listed["lists"]


def test_quasi_affine_modules_have_no_lists() -> None:
    assert "list_tiles" not in text_of("duo")
    assert "list_tiles" in text_of("mixed")


def test_emitting_needs_neither_torch_nor_triton() -> None:
    assert importlib.util.find_spec("torch") is not None
    code = (
        "import sys; import patternc.backends.triton.emit;"
        "print({'torch', 'triton'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_tiles_that_shared_memory_cannot_hold_are_refused_before_a_launch(
    tmp_path: Path,
) -> None:
    module = module_of("window", tmp_path, Schedule(256, 256))
    q = torch.zeros(1, 4, 32, 128)
    k = torch.zeros(1, 2, 32, 128)
    with pytest.raises(ValueError, match=r"tiles of 256 x 256 .* smaller tiles"):
        module.forward(q, k, k)

"""What a command imports: `patternc check` must not wait for torch to load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "triton", "sympy")


def _imported(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `code`."""
    script = f"{code}\nimport sys; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}


def _command(*arguments: str) -> str:
    return f"from patternc.cli import main; assert main({list(arguments)!r}) == 0"


@pytest.mark.parametrize(
    "code",
    [
        "import patternc",
        _command("check", "examples/03_streaming.pat", "examples/phi3_small.pat"),
    ],
    ids=["import", "check"],
)
def test_the_front_half_is_light(code: str) -> None:
    loaded = _imported(code)
    assert "patternc" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "arguments",
    [
        ("mask", "examples/phi3_small.pat", "--digest", "--via", "plan"),
        ("explain", "examples/03_streaming.pat"),
    ],
    ids=["mask", "explain"],
)
def test_no_torch_where_nothing_is_computed(arguments: tuple[str, ...]) -> None:
    assert _imported(_command(*arguments)).isdisjoint({"torch", "triton"})


def test_compile_needs_no_torch(tmp_path: Path) -> None:
    code = _command("compile", "examples/phi3_small.pat", "-o", str(tmp_path))
    assert _imported(code).isdisjoint({"torch", "triton"})
    assert [path.name for path in tmp_path.iterdir()] == ["phi3_small.py"]


def test_a_call_imports_no_compiler_of_torch() -> None:
    code = """
import sys, torch, patternc
heads, keys = torch.zeros(1, 4, 8, 16), torch.zeros(1, 2, 8, 16)
patternc.load("examples/03_streaming.pat")(heads, keys, keys)
assert "torch._dynamo" not in sys.modules
assert "sympy" not in sys.modules
"""
    assert "torch" in _imported(code)


def test_the_test_sees_a_heavy_import() -> None:
    assert "sympy" in _imported("import sympy")

"""Imports go one way: from the command line down to the source, never back."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "patternc"

LAYERS = (
    ("patternc.source", "patternc.version", "patternc.runtime"),
    ("patternc.diagnostics", "patternc.runtime_wheel"),
    (
        "patternc.ir",
        "patternc.limits",
        "patternc.settings",
        "patternc.progress",
        "patternc.store",
    ),
    ("patternc.analysis", "patternc.grammar", "patternc.stdlib_patterns"),
    ("patternc.plan", "patternc.syntax", "patternc.picture"),
    ("patternc.passes", "patternc.check", "patternc.codes", "patternc.render"),
    ("patternc.backends",),
    ("patternc.driver", "patternc.ops"),
    (
        "patternc.contract",
        "patternc.data_checks",
        "patternc.planned",
        "patternc.samples",
    ),
    (
        "patternc.verify",
        "patternc.call_data",
        "patternc.explain_counts",
        "patternc.explain_selections",
        "patternc.masks",
        "patternc.planning",
    ),
    ("patternc.explain",),
    ("patternc.verify_gradients",),
    ("patternc.attention",),
    ("patternc.functional", "patternc.loading", "patternc.packaged"),
    ("patternc.nn",),
    ("patternc.timing",),
    ("patternc.__init__",),
    ("patternc.bench",),
    ("patternc.cli",),
    ("patternc.__main__",),
)
"""Lowest first. A module may import from lower layers and from its own package."""

LAZY = {
    "patternc.__init__": "public names are imported on first use, so that importing "
    "patternc imports no torch",
    "patternc.attention": "explaining is imported when it is asked for",
    "patternc.backends.__init__": "a backend is imported when it is asked for",
    "patternc.cli.mask": "torch is imported for programs that select alone",
    "patternc.cli.bench": "the suite needs triton, which is there on Linux only",
    "patternc.cli.__init__": "a command is imported when it is called",
}
"""The only modules that may import inside a function, and why."""


def _modules() -> dict[str, ast.Module]:
    """Every module of patternc by its dotted name, siblings included."""
    found = {}
    # Python 3.11's rglob does not enter links, so that each sibling is named here.
    for folder in (PACKAGE, *(path for path in PACKAGE.iterdir() if path.is_symlink())):
        for path in folder.rglob("*.py"):
            inside = path.relative_to(PACKAGE).with_suffix("")
            name = ".".join(["patternc", *inside.parts])
            found[name] = ast.parse(path.read_text(), str(path))
    return found


MODULES = _modules()


def _relative_imports(tree: ast.AST) -> set[str]:
    """The modules of its own package that a piece of code imports by relative names."""
    return {
        f"{'.' * node.level}{node.module or ''}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level > 0
    }


def _layer(module: str) -> int:
    for number, names in enumerate(LAYERS):
        for name in names:
            if module == name or module.startswith(f"{name}."):
                return number
    raise AssertionError(f"{module} is in no layer; add it to LAYERS")


def _imports(tree: ast.AST) -> set[str]:
    """The modules of patternc that a piece of code imports, as dotted names."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if _is_module(name) else str(node.module))
    return {_file_of(name) for name in found if name.split(".")[0] == "patternc"}


def _is_module(name: str) -> bool:
    return name in MODULES or f"{name}.__init__" in MODULES


def _file_of(name: str) -> str:
    return name if name in MODULES else f"{name}.__init__"


def _package(module: str) -> str:
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module: str) -> None:
    for imported in _imports(MODULES[module]):
        if _package(imported) == _package(module):
            continue
        if module in LAZY and _layer(imported) > _layer(module):
            continue
        assert _layer(imported) < _layer(module), f"{module} imports {imported}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_are_absolute_but_in_the_runtime(module: str) -> None:
    relative = _relative_imports(MODULES[module])
    if not module.startswith("patternc.runtime."):
        assert not relative, f"{module} imports {relative}"
        return
    # A copy of its folder works alone: it imports torch, the standard library, itself.
    assert not any(name.startswith("..") for name in relative)
    assert not _imports(MODULES[module])


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_import_inside_a_function(module: str) -> None:
    inside = [
        node.lineno
        for function in ast.walk(MODULES[module])
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not inside or module in LAZY, f"{module} imports in lines {inside}"


def test_no_cycle() -> None:
    graph = {
        module: _top_level_imports(tree) - {module} for module, tree in MODULES.items()
    }
    finished: set[str] = set()
    while (
        ready := {name for name, needs in graph.items() if needs <= finished} - finished
    ):
        finished |= ready
    assert finished == set(graph), f"in or behind a cycle: {set(graph) - finished}"


def _top_level_imports(tree: ast.Module) -> set[str]:
    body = [
        node
        for node in tree.body
        if not isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    return _imports(ast.Module(body, [])) & set(MODULES)


def test_the_test_sees_an_import_that_goes_up() -> None:
    upward = ast.parse("from patternc.plan import tiling\nimport patternc.cli.check\n")
    found = _imports(upward)
    assert found == {"patternc.plan.tiling", "patternc.cli.check"}
    assert all(_layer(name) > _layer("patternc.ir.nodes") for name in found)

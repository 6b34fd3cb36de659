"""The package as others get it: every folder is packed, and the wheel works alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import patternc
from patternc.version import VERSION

ROOT = Path(__file__).parents[1]
SKIPPED = (".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")


def _setuptools_table() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        table = tomllib.load(stream)["tool"]["setuptools"]
    assert isinstance(table, dict)
    return table


def test_every_folder_with_code_is_in_the_list_of_packages() -> None:
    table = _setuptools_table()
    folders = table["package-dir"]
    listed = table["packages"]
    assert isinstance(folders, dict) and isinstance(listed, list)
    found = set()
    for name, folder in folders.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            # The links in patternc/ lead to folders that have an entry of their own.
            if any(
                (ROOT / folder / part).is_symlink() for part in _parents(init, folder)
            ):
                continue
            inside = init.parent.relative_to(ROOT / folder).parts
            found.add(".".join([name, *inside]))
    assert found == set(listed)
    assert len(listed) == len(set(listed))


def _parents(init: Path, folder: str) -> list[Path]:
    inside = init.parent.relative_to(ROOT / folder)
    return [inside, *inside.parents]


def test_every_folder_with_modules_is_a_package() -> None:
    for top in ("patternc", "backends", "grammar", "stdlib_patterns"):
        for module in (ROOT / top).rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), module


def test_the_links_lead_to_the_sibling_folders() -> None:
    for name in ("backends", "grammar", "stdlib_patterns"):
        assert (ROOT / "patternc" / name).is_symlink()
        assert (ROOT / "patternc" / name).resolve() == (ROOT / name).resolve()


def test_the_version_is_the_same_everywhere() -> None:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        declared = tomllib.load(stream)["project"]["version"]
    assert declared == VERSION == patternc.__version__
    assert f"## {declared}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a source archive, built from a copy of the checkout."""
    base = tmp_path_factory.mktemp("wheel")
    copy = base / "checkout"
    shutil.copytree(
        ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*SKIPPED, "data")
    )
    build = (
        "import setuptools.build_meta as b, sys;"
        "print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"
    )
    archive = _last_line([sys.executable, "-c", build, "sdist", str(base)], copy)
    shutil.unpack_archive(base / archive, base / "sdist", filter="data")
    (unpacked,) = (base / "sdist").iterdir()
    name = _last_line([sys.executable, "-c", build, "wheel", str(base)], unpacked)
    return base / name


def _last_line(command: list[str], folder: Path, **variables: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_the_wheel_holds_code_and_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
    inside = {name for name in names if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in inside} == {"patternc"}
    expected = set()
    for top in ("patternc", "backends", "grammar", "stdlib_patterns"):
        for path in (ROOT / top).rglob("*"):
            if path.suffix in (".py", ".json", ".lark", ".pat", ".tmpl", ".typed"):
                parts = path.relative_to(ROOT).as_posix()
                expected.add(parts if top == "patternc" else f"patternc/{parts}")
    assert inside == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_runs_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    site = str(tmp_path / "site")
    python = [sys.executable, "-P"]
    where = _last_line(
        [*python, "-c", "import patternc; print(patternc.__file__)"],
        tmp_path,
        PYTHONPATH=site,
    )
    assert Path(where).is_relative_to(site)
    shutil.copy(ROOT / "examples" / "03_streaming.pat", tmp_path)
    command = [*python, "-m", "patternc"]
    checked = _last_line(
        [*command, "check", "03_streaming.pat"], tmp_path, PYTHONPATH=site
    )
    assert checked == "03_streaming.pat: ok"
    written = _last_line(
        [*command, "compile", "03_streaming.pat", "-o", "out"],
        tmp_path,
        PYTHONPATH=site,
    )
    assert (tmp_path / written).read_text().startswith('"""')

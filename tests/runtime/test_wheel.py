"""The runtime as a wheel: installed alone it runs a package."""

from __future__ import annotations

import io
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from patternc.cli import main
from patternc.runtime_wheel import PYTHON, REQUIRES, wheel_bytes, wheel_name
from tests.runtime.packages import TRAINED, quick_bytes

ROOT = Path(__file__).parents[2]

_CODE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("patternc", "triton", "lark", "islpy", "sympy"):
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Refuse())
site, package = sys.argv[1:]
sys.path.insert(0, site)
import patternc_runtime
assert patternc_runtime.__file__.startswith(site)
attn = patternc_runtime.load(package)
print(attn.name, *sorted(x for x in sys.modules if x == "patternc"))
"""


def test_it_is_all_that_is_installed(tmp_path: Path) -> None:
    assert main(["runtime", "-o", str(tmp_path / "wheels")]) == 0
    wheel, site = tmp_path / "wheels" / wheel_name(), tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--target"]
    subprocess.run([*pip, *options, site, wheel], check=True, timeout=120)
    package = tmp_path / "causal.patk"
    package.write_bytes(quick_bytes("causal", TRAINED))
    done = subprocess.run(
        [sys.executable, "-I", "-c", _CODE, site, package],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == "causal_gqa\n", done.stderr


def test_its_files_are_the_runtimes() -> None:
    assert wheel_bytes() == wheel_bytes()
    with zipfile.ZipFile(io.BytesIO(wheel_bytes())) as packed:
        for path in sorted((ROOT / "patternc" / "runtime").glob("*.py")):
            assert packed.read(f"patternc_runtime/{path.name}") == path.read_bytes()
        (metadata,) = (x for x in packed.namelist() if x.endswith("METADATA"))
        assert f"Requires-Dist: {REQUIRES}\n" in packed.read(metadata).decode()


def test_it_needs_what_patternc_needs_of_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert REQUIRES in project["dependencies"]
    assert project["requires-python"] == PYTHON

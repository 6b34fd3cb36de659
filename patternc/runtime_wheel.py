"""The runtime as a distribution of its own, for machines that only run packages.

In: the files of `patternc.runtime`. Out: a wheel, `patternc-runtime`, whose one
dependency is torch; the same bytes wherever it is made. An extra of patternc can't be
that, as extras add to what patternc itself needs. Not its job: installing, packages.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping
from importlib import resources

from patternc.version import VERSION

IMPORTED_AS = "patternc_runtime"
"""The name to import; not `patternc.runtime`, so that both can be installed."""

REQUIRES = "torch>=2.6"
PYTHON = ">=3.11"

_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = 0o644 << 16
"""The first day that a zip file can say, and who may read: nothing of this machine."""

_METADATA = f"""\
Metadata-Version: 2.4
Name: patternc-runtime
Version: {VERSION}
Summary: Runs attentions that patternc compiled ahead of time: no compiler needed.
License-Expression: Apache-2.0
Requires-Python: {PYTHON}
Requires-Dist: {REQUIRES}
"""

_WHEEL = """\
Wheel-Version: 1.0
Generator: patternc
Root-Is-Purelib: true
Tag: py3-none-any
"""


def wheel_name() -> str:
    """The file's name, which pip reads."""
    return f"{IMPORTED_AS}-{VERSION}-py3-none-any.whl"


def wheel_bytes() -> bytes:
    """The wheel, whole (PyPA's binary distribution format)."""
    info = f"{IMPORTED_AS}-{VERSION}.dist-info"
    files = {
        **{f"{IMPORTED_AS}/{name}": text for name, text in _sources().items()},
        f"{info}/METADATA": _METADATA.encode(),
        f"{info}/WHEEL": _WHEEL.encode(),
    }
    record = f"{info}/RECORD"
    files[record] = _record(files, record).encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.external_attr = _MODE
            packed.writestr(entry, content)
    return stream.getvalue()


def _sources() -> dict[str, bytes]:
    """The runtime's own files; by their types others can check their calls."""
    folder = resources.files("patternc.runtime")
    names = sorted(x.name for x in folder.iterdir() if x.name.endswith(".py"))
    return {name: (folder / name).read_bytes() for name in names} | {"py.typed": b""}


def _record(files: Mapping[str, bytes], own: str) -> str:
    """One line for each file: path, hash, size."""
    lines = []
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
        lines.append(f"{path},sha256={digest.decode().rstrip('=')},{len(content)}\n")
    return "".join([*lines, f"{own},,\n"])

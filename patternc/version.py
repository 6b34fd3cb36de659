"""The version: what `--version` prints and generated modules name.

In: nothing. Out: `VERSION`. Not its job: the package's metadata, which repeats it
(tests/test_packaging.py holds the two together).
"""

from __future__ import annotations

VERSION = "0.1.0"

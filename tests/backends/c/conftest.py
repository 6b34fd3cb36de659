"""A folder for C files and libraries, which all tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once."""
    return tmp_path_factory.mktemp("c")

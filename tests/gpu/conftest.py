"""Tests of this folder need a CUDA device and are skipped where there is none."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def cuda() -> None:
    """Skip without a device."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")

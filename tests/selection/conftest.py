"""Triton's interpreter for the whole process: it must be chosen before the import."""

from __future__ import annotations

from tests.interpreter import interpret

interpret()

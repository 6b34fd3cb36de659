"""What a comparison raises."""

from __future__ import annotations


class Difference(Exception):
    """Two answers that are not the same."""

"""Programs that select, compiled from a few lines.

In: the clauses of an attention. Out: the object that a user calls. Not its job: random
programs (`random_selections`).
"""

from __future__ import annotations

from pathlib import Path

import patternc
from patternc.attention import Attention


def attention(
    folder: Path, clauses: str, heads: str = "heads 1", parameters: str = ""
) -> Attention:
    """An attention `chooses` of some clauses."""
    path = folder / "program.pat"
    path.write_text(f"attention chooses{parameters} {{\n{heads}\n{clauses}\n}}\n")
    return patternc.load(path)

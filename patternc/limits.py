"""How much of anything a `.pat` file may ask for.

A file is untrusted input: compiling one must end, in bounded time and memory. Each
limit is far above what a person writes and is reported by its own diagnostic.
"""

from __future__ import annotations

FILE_BYTES = 1 << 20
"""Bytes in a file; checked before it is read."""

TOKENS = 20_000
"""Words, numbers and signs in a file."""

NESTING = 100
"""Levels of nesting of an expression: brackets, signs, operators."""

NAME_LENGTH = 64
"""Characters in a name."""

INT_MIN = -(2**63)
INT_MAX = 2**63 - 1
"""Integers have 64 bits everywhere: literals, parameters and what is computed."""

DECIMAL_DIGITS = 30
"""Digits of a decimal number such as `0.07`."""

EXPANSION = 20_000
"""Nodes of one mask after its patterns are put in place."""

FILE_EXPANSION = 50_000
"""Operations that all the masks, conditions and numbers of one check may take."""

EXPANSION_DEPTH = 150
"""Levels of nesting of a mask after its patterns are put in place."""

POSITION = 2**30
"""Positions lie in `[-POSITION, POSITION]`, lengths in `[1, POSITION]`."""

HEADS = 65_536
"""Query heads of an attention."""

DIAGNOSTICS = 100
"""Findings that are reported for one file."""

SUGGESTIONS = 300
"""Names among which a misspelt one is looked for."""

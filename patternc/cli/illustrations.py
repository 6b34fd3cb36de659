"""Inputs that the pictures of standard attentions are drawn from.

In: nothing. Out: for each standard file that declares inputs, small tables that fit its
`# Picture:` line. Not its job: real data, which a call gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from patternc.cli.inputs import Table


def _documents() -> dict[str, Table]:
    """Three documents of 64 tokens in all, and where their prefixes end."""
    lengths = (28, 16, 20)
    return {
        "doc": np.repeat(np.arange(3), lengths),
        "until": np.repeat(np.array([10, 28, 52]), lengths),
    }


def _tree() -> dict[str, Table]:
    """A binary tree of 32 drafts; each is its own ancestor."""
    ancestor = np.eye(32, dtype=np.bool_)
    for node in range(1, 32):
        ancestor[node] |= ancestor[(node - 1) // 2]
    return {"ancestor": ancestor}


def _block_table() -> dict[str, Table]:
    """8 x 8 blocks: the own one and a scattered third of the others."""
    rows, columns = np.mgrid[0:8, 0:8]
    return {"keep": ((rows == columns) | ((5 * rows + 3 * columns) % 7 < 2))[None]}


def _axis_blocks() -> dict[str, Table]:
    """Blocks near the diagonal, 28 x 28 for each of 48 heads."""
    rows, columns = np.mgrid[0:28, 0:28]
    return {"bits": np.repeat((np.abs(rows - columns) <= 2)[None], 48, axis=0)}


def _per_head() -> dict[str, Table]:
    """Windows that grow with the head."""
    heads = np.arange(32)
    return {"sinks": 2 + heads, "recent": 4 + 2 * heads}


def _jenga() -> dict[str, Table]:
    """18 x 18 blocks, neighbours in the order of a curve, and a few beyond it."""
    rows, columns = np.mgrid[0:18, 0:18]
    return {"near": (np.abs(rows - columns) <= 1) | (rows + columns == 15)}


def _longheads() -> dict[str, Table]:
    """Scores of 16 chunks for 128 queries: those of chunk 5 and of every third rise."""
    queries, chunks = np.mgrid[0:128, 0:16]
    return {"rank": (np.cos(queries / 9 + 2 * chunks) + 2.0 * (chunks == 5))[None]}


def _sparsifiner() -> dict[str, Table]:
    """Scores of 49 patches and the class token: near ones are high, and some columns."""
    queries, keys = np.mgrid[0:50, 0:50]
    near = -np.hypot(queries // 7 - keys // 7, queries % 7 - keys % 7)
    return {"predicted": (near + 4.0 * (keys % 11 == 3))[None]}


ILLUSTRATIONS: Mapping[str, Callable[[], dict[str, Table]]] = {
    "axis_blocks": _axis_blocks,
    "block_table": _block_table,
    "documents": _documents,
    "jenga": _jenga,
    "longheads": _longheads,
    "per_head": _per_head,
    "sparsifiner": _sparsifiner,
    "tree": _tree,
}

"""Lines of the launcher of packages that several of its functions have.

In: nothing. Out: lines for the holes of templates, which ask constants where those of a
generated module depend on the program (`launches`). Not its job: the functions (`host`).
"""

from __future__ import annotations


def numbers_lines() -> list[str]:
    return [
        "*(lists[6:] or [0])[:LIST_NUMBERS],",
        "*stripes[9:11],",
        "*(as_numbers(pointers) if pointers else ()),",
    ]


def more_lines() -> list[str]:
    return [
        "if LAYOUT_SIZE is not None:",
        "    check_length(NAME, LAYOUT_SIZE, q.shape[2], k.shape[2], q_offset)",
        "if READS_OWN_VALUE:",
        "    check_own_values(NAME, q.shape[2], k.shape[2], q_offset)",
        "inputs = checked_inputs(q, k, q_offset, params) if INPUTS else {}",
    ]


def sequences_lines(reason: str) -> list[str]:
    return [
        "sizes = (k.shape[2], q_offset)",
        "sequences = check_sequences(NAME, q, *sizes, *given)",
        f"if sequences is not None and {reason}:",
        f"    came = {reason}",
        '    raise ValueError(f"{NAME}: `lengths`, `cu_seqlens`: refused, as {came}")',
    ]


def access_lines(tensors: str) -> list[str]:
    return [
        f"access = access_of({tensors})",
        "if n_k == 0:",
        '    access = "any"',
        "ordered = IS_ORDERED and is_ordered(n_q, n_k, q_offset)",
        'if ordered and access == "descriptor":',
        '    access = "aligned"  # rows are gathered by token',
    ]


def lists_lines() -> list[str]:
    return [
        "pointers, stripes = as_pointers(inputs) if TABLES else (), ()",
        "if HAS_STRIPES:",
        "    sizes = (batch, n_q, n_k, q_offset)",
        "    stripes = kept_stripes(*sizes, values, pointers, q.device)",
        "lists, turned = (), ()",
        "if LISTED:",
        "    given = (values, inputs, False, q.device)",
        "    lists = tile_lists(batch, n_q, n_k, q_offset, *given)",
        "elif LIST_TENSORS or TURNED_TENSORS:",
        "    lists, turned = stored_lists(n_q, n_k, q_offset, q.device)",
    ]


def start_lines(hides: str) -> list[str]:
    """The launch `first`, and `again` where tiles may hold hidden pairs."""
    return [
        f"if {hides} or sequences is not None:",
        "    start_both(first, again)",
        "else:",
        "    start(*first)",
    ]

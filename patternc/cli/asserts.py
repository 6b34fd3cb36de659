"""The asserts of a program, on the data of one call: `--check`.

In: an attention, what is known of its asserts, the tables of its inputs. Out: whether
what could not be proved holds for these tables, said in one line on stderr. Needs no
torch. Not its job: proofs (`analysis.prove`), the looking (`patternc.data_checks`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from patternc.analysis.prove import Decision
from patternc.cli.inputs import Call, Table
from patternc.cli.report import complain
from patternc.data_checks import CallPairs, can_be_checked, failing_assert
from patternc.ir.nodes import Attention


def hold(
    attention: Attention,
    decisions: Sequence[Decision],
    call: Call,
    params: Mapping[str, int],
    tables: Mapping[str, Table],
) -> bool:
    """Whether no assert fails, for all heads and the batch element of `tables`."""
    pairs = CallPairs(call.n_q, call.n_k, call.q_offset, params, tables)
    failure = failing_assert(attention, decisions, pairs)
    if failure is not None:
        complain(failure)
        return False
    still_open = [found for found in decisions if found.holds is None]
    checked = [found for found in still_open if can_be_checked(found.assertion)]
    counts = {
        "proved": len(decisions) - len(still_open),
        "true of this call": len(checked),
        "open, as no one call can tell": len(still_open) - len(checked),
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    complain(f"asserts: {told or 'there are none'}", "note")
    return True

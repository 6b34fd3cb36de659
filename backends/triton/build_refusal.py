"""Programs that cannot be compiled ahead of time.

In: a planned kernel. Out: a diagnostic that points at what needs more than a package
has, or None. Not its job: what a call asks for (the runtime checks that).
"""

from __future__ import annotations

from patternc.backends.triton.features import features_of
from patternc.backends.triton.ranges import is_listed
from patternc.diagnostics import Diagnostic
from patternc.ir.nodes import OutputCase, SinkCase
from patternc.plan.kernel import Kernel
from patternc.plan.reverse import reverse
from patternc.source import Span


def build_refusal(kernel: Kernel, backward: bool) -> Diagnostic | None:
    """The first part of a program whose launches a package can't describe.

    It holds launches of kernels, tile lists of a layout, and numbers; no PyTorch code of
    the program: a package is data.
    """
    attention, features = kernel.attention, features_of(kernel)
    if attention.selections:
        return _refusal(
            "a package has no selections yet",
            attention.selections[0].span,
            "PyTorch code of the program plans which keys it chooses",
        )
    if attention.inputs:
        item = attention.inputs[0]
        return _refusal(
            f"a package has no inputs yet, and this program reads `{item.name}`",
            item.span,
            "it is declared here",
        )
    rows: list[SinkCase | OutputCase] = [*features.sinks, *features.outputs]
    if rows:
        return _refusal(
            "a package has no `sink` and `output` clauses yet",
            rows[0].span,
            "PyTorch finishes the rows of these heads",
        )
    listed = [cover for cover in kernel.covers if is_listed(cover)]
    if backward:
        listed += [x for x in reverse(kernel, kernel.schedule).covers if is_listed(x)]
    if listed and attention.layout is None:
        return _refusal(
            "a package has tile lists for a layout's one length only",
            listed[0].span,
            "the tiles of this mask are listed anew for every length",
        )
    if attention.params and (listed or features.is_ordered):
        return _refusal(
            "a package has tile lists for one value of each parameter only",
            attention.span,
            f"`{attention.params[0].name}` may be another one in each call",
        )
    return None


def _refusal(message: str, span: Span, label: str) -> Diagnostic:
    advice = "load it with patternc.load where it runs, or `patternc compile` a module"
    return Diagnostic("unsupported", message, span, label, advice)

"""Programs that cannot be compiled ahead of time.

In: a planned kernel. Out: a diagnostic that points at what needs more than a package
has, or None. Not its job: what a call asks for (the runtime checks that).
"""

from __future__ import annotations

from patternc.backends.triton.features import (
    Features,
    features_of,
    follows_inputs,
    labels_of,
)
from patternc.backends.triton.plan_facts import plan_facts
from patternc.backends.triton.plan_steps import Unplanned
from patternc.backends.triton.ranges import is_listed
from patternc.backends.triton.stripe_gradients import has_gradients
from patternc.backends.triton.stripes import striped, without_stripes
from patternc.diagnostics import Diagnostic
from patternc.ir.selected import dense_alternative
from patternc.plan.kernel import Kernel
from patternc.plan.reverse import reverse
from patternc.source import Span


def build_refusal(
    kernel: Kernel, backward: bool, has_dense: bool = False
) -> Diagnostic | None:
    """The first part of a program whose launches a package can't describe.

    It holds launches of kernels, tile lists of a layout, steps of plans, and numbers; no
    PyTorch code of the program: a package is data. `has_dense`: with another program,
    for calls where choosing does not pay.
    """
    attention, features = kernel.attention, features_of(kernel)
    if not has_dense and dense_alternative(attention) is not None:
        return _refusal(
            "this package would have no program for `else dense when cheaper`",
            attention.dense_cases[0].span,
            "it was not given the dense one",
        )
    try:
        plan_facts(attention, ())
    except Unplanned as error:
        return _refusal(
            "a package has no plan for this selection yet",
            error.span,
            "PyTorch computes parts of its map",
        )
    return _lists_refusal(kernel, features, backward)


def _lists_refusal(
    kernel: Kernel, features: Features, backward: bool
) -> Diagnostic | None:
    """Tiles that are listed anew for each call."""
    attention, stripes = kernel.attention, striped(kernel)
    own = kernel
    if stripes is not None:
        own, features = without_stripes(kernel, features, stripes)
        if backward and not has_gradients(features):
            return _refusal(
                "a package has no gradients of chosen tiles whose scores read inputs",
                features.scores[0].span,
                "the backward pass lists the tiles of these heads",
            )
    listed = [cover for cover in own.covers if is_listed(cover)]
    if backward:
        listed += [x for x in reverse(own, kernel.schedule).covers if is_listed(x)]
    follow = follows_inputs(own)
    if listed and attention.layout is None and not follow:
        return _refusal(
            "a package has tile lists for a layout's one length only",
            listed[0].span,
            "the tiles of this mask are listed anew for every length",
        )
    labels = [name for cover in kernel.covers for name in labels_of(cover)]
    if labels:
        return _refusal(
            f"a package has no order by an input yet, and this one sorts by `{labels[0]}`",
            attention.orders[0].span,
            "its tiles are listed anew for every call",
        )
    if follow and features.is_ordered:
        return _refusal(
            "a package has no order beside tile lists that follow inputs yet",
            attention.orders[0].span if attention.orders else attention.span,
            "its tiles are listed anew for every call",
        )
    if attention.params and not follow and (listed or features.is_ordered):
        return _refusal(
            "a package has tile lists for one value of each parameter only",
            attention.span,
            f"`{attention.params[0].name}` may be another one in each call",
        )
    return None


def _refusal(message: str, span: Span, label: str) -> Diagnostic:
    advice = "load it with patternc.load where it runs, or `patternc compile` a module"
    return Diagnostic("unsupported", message, span, label, advice)

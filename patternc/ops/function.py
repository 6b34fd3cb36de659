"""Autograd on top of the operators.

In: a checked call. Out: output and LSE, with gradients once. Not its job: the numbers
(`ops.program`).

Three ways lead to the same programs. Where nothing needs a gradient the operator is
called as it is. `_WithContext` is the cheap form of an `autograd.Function`; `_Apart`,
whose context is set up apart from its forward, is the form that torch.func needs. The
first two call the program itself where no one watches operators (`ops.watched`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKeySet

from patternc.diagnostics import Diagnostic, PatternError
from patternc.ops.operators import LIBRARY, attention, attention_backward
from patternc.ops.program import Kept, Site, constant, program_of
from patternc.ops.watched import is_watched, needs_gradient

Gradients = tuple[Tensor | None, ...]


def call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inputs: Sequence[Tensor],
    program: str,
    site: Site,
    return_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    """Output and LSE of a checked call, the LSE empty or None unless wanted or at hand.

    `inputs` are in the order of declaration. Raises `PatternError` if a gradient is
    needed that the program's backend does not compute.
    """
    tensors = (q, k, v, *inputs)
    mapped = torch._C._are_functorch_transforms_active()
    if mapped or needs_gradient(tensors):
        wanted = [
            number
            for number, x in enumerate(inputs)
            if x.dtype.is_floating_point and (mapped or x.requires_grad)
        ]
        _check_gradients(program, tuple(wanted))
        form = _Apart if mapped else _WithContext
        numbers = (*site.params, site.q_offset)
        found = form.apply(q, k, v, program, site.scale, numbers, *inputs)  # type: ignore[no-untyped-call]
    elif is_watched(tensors):
        params, rest = list(site.params), (site.q_offset, site.scale, return_lse, False)
        found = attention(q, k, v, list(inputs), program, params, *rest)
    else:
        return program_of(program).run(q, k, v, inputs, site, return_lse)
    return found[0], found[1]


def autocast(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The tensors in the dtype of `torch.autocast` where it is on, but for float64."""
    if not (torch.compiler.is_compiling() or torch._C._is_any_autocast_enabled()):
        return q, k, v
    if not (isinstance(q, Tensor) and torch.is_autocast_enabled(q.device.type)):
        return q, k, v
    dtype = torch.get_autocast_dtype(q.device.type)
    return _narrowed(q, dtype), _narrowed(k, dtype), _narrowed(v, dtype)


def _narrowed(x: Tensor, dtype: torch.dtype) -> Tensor:
    fits = isinstance(x, Tensor) and x.is_floating_point() and x.dtype != torch.float64
    return x.to(dtype) if fits else x


def _keep(arguments: Sequence[Any]) -> tuple[Tensor, ...]:
    """The operator's four results."""
    q, k, v, program, scale, numbers, *inputs = arguments
    params, q_offset = list(numbers[:-1]), numbers[-1]
    found: tuple[Tensor, ...] = attention(
        q, k, v, inputs, program, params, q_offset, scale, True, True
    )
    return found


def _keep_at_once(arguments: Sequence[Any]) -> Kept:
    """The same from the program itself, where no one watches."""
    q, k, v, program, scale, numbers, *inputs = arguments
    if is_watched((q, k, v, *inputs)):
        out, lse, *core = _keep(arguments)
        return out, lse, core[0], core[1]
    site = Site(numbers[:-1], numbers[-1], scale)
    return program_of(program).run_for_gradients(q, k, v, inputs, site)


def _save(
    ctx: Any,
    arguments: Sequence[Any],
    results: Sequence[Tensor | None],
    wanted: Sequence[int],
) -> None:
    """Keep what the way back needs: the core, if there is one, else the results."""
    q, k, v, program, scale, numbers, *inputs = arguments
    has_core = _keeps_core(program)
    kept = results[2:] if has_core else results[:2]
    ctx.save_for_backward(q, k, v, *kept, *inputs)
    ctx.set_materialize_grads(False)
    ctx.program, ctx.scale, ctx.numbers = program, scale, numbers
    ctx.wanted = wanted


def _arguments(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None) -> tuple[Any, ...]:
    """All that the way back needs, flat, the inputs last."""
    q, k, v, out, lse, *inputs = ctx.saved_tensors
    told = (ctx.program, ctx.scale, ctx.numbers, ctx.wanted)
    return d_out, d_lse, q, k, v, out, lse, *told, *inputs


def _compute(arguments: Sequence[Any]) -> list[Tensor]:
    """The operator's gradients."""
    d_out, d_lse, q, k, v, out, lse, program, scale, numbers, wanted = arguments[:11]
    rest = (list(arguments[11:]), out, lse, program, list(numbers[:-1]), numbers[-1])
    found: list[Tensor] = attention_backward(
        d_out, d_lse, q, k, v, *rest, scale, list(wanted)
    )
    return found


def _compute_at_once(arguments: Sequence[Any]) -> list[Tensor]:
    """The same from the program itself, where no one watches or differentiates."""
    d_out, d_lse, q, k, v, out, lse, program, scale, numbers, wanted = arguments[:11]
    inputs = arguments[11:]
    given = [x for x in (d_out, d_lse) if x is not None]
    tensors = (*given, q, k, v, out, lse, *inputs)
    if is_watched(tensors) or needs_gradient(tensors):
        return _compute(arguments)
    site = Site(numbers[:-1], numbers[-1], scale)
    return program_of(program).gradients(
        q, k, v, inputs, (out, lse), d_out, d_lse, site, wanted
    )


def _in_order(ctx: Any, inputs: int, found: Sequence[Tensor]) -> Gradients:
    """The gradients in the places of the forward's arguments."""
    own: list[Tensor | None] = [None] * inputs
    for number, gradient in zip(ctx.wanted, found[3:], strict=True):
        own[number] = gradient
    return *found[:3], None, None, None, *own


class _WithContext(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor | None, ...]:
        results = _keep_at_once(arguments)
        floats = _floats_of(arguments[3])
        wanted = tuple(n for n in floats if ctx.needs_input_grad[6 + n])
        _save(ctx, arguments, results, wanted)
        return results[:2]

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None) -> Gradients:
        arguments = _arguments(ctx, d_out, d_lse)
        return _in_order(ctx, len(arguments) - 11, _compute_at_once(arguments))


class _Apart(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return _keep(arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        floats = _floats_of(inputs[3])
        ctx.mark_non_differentiable(*output[2:])
        _save(ctx, inputs, output, floats)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Gradients:
        arguments = _arguments(ctx, gradients[0], gradients[1])
        found = _Once.apply(*arguments)  # type: ignore[no-untyped-call]
        return _in_order(ctx, len(arguments) - 11, found)


class _Once(torch.autograd.Function):
    """Passes gradients on, and says so when somebody asks for theirs."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return tuple(_compute(arguments))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.program = inputs[7]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Gradients:
        raise RuntimeError(
            f"{ctx.program}: the gradients of an attention have no gradient: it can be"
            " differentiated once"
        )


def _attention_autograd(
    keys: DispatchKeySet,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inputs: list[Tensor] | None,
    program: str,
    params: list[int] | None,
    q_offset: int,
    scale: float,
    return_lse: bool,
    keep: bool,
) -> tuple[Tensor, ...]:
    """The operator called by itself, as an exported graph does."""
    # A package of AOTInductor hands an empty list over as None.
    inputs, params = inputs or [], params or []
    # Under torch.func, `call` went through `_Apart`.
    mapped = torch._C._are_functorch_transforms_active()
    if not mapped and needs_gradient((q, k, v, *inputs)):
        numbers = (*params, q_offset)
        found: tuple[Tensor, ...] = _Apart.apply(  # type: ignore[no-untyped-call]
            q, k, v, program, scale, numbers, *inputs
        )
        return found
    arguments = (q, k, v, inputs, program, params, q_offset, scale, return_lse, keep)
    below: tuple[Tensor, ...] = attention.redispatch(
        keys & torch._C._after_autograd_keyset, *arguments
    )
    return below


def _attention_backward_autograd(
    keys: DispatchKeySet,
    d_out: Tensor | None,
    d_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inputs: list[Tensor],
    out: Tensor,
    lse: Tensor,
    program: str,
    params: list[int],
    q_offset: int,
    scale: float,
    wanted: list[int],
) -> list[Tensor]:
    """Gradients that remember that they can't be differentiated."""
    sources = (d_out, d_lse, q, k, v, *inputs)
    # Under torch.func `_Apart` has seen to it, at the level that differentiates.
    if torch._C._are_functorch_transforms_active() or not needs_gradient(sources):
        arguments = (d_out, d_lse, q, k, v, inputs, out, lse, program, params)
        below: list[Tensor] = attention_backward.redispatch(
            keys & torch._C._after_autograd_keyset, *arguments, q_offset, scale, wanted
        )
        return below
    told = (out, lse, program, scale, (*params, q_offset), tuple(wanted))
    return list(_Once.apply(d_out, d_lse, q, k, v, *told, *inputs))  # type: ignore[no-untyped-call]


@constant
def _floats_of(program: str) -> tuple[int, ...]:
    """The numbers of its floating inputs."""
    return program_of(program).float_inputs


@constant
def _keeps_core(program: str) -> bool:
    return program_of(program).keeps_core


@constant
def _check_gradients(program: str, wanted: tuple[int, ...]) -> None:
    """Raises `PatternError` if its backend does not compute these gradients."""
    refusal = _refusal(program, wanted)
    if refusal is not None:
        raise PatternError([refusal])


@lru_cache(maxsize=1024)
def _refusal(program: str, wanted: tuple[int, ...]) -> Diagnostic | None:
    found = program_of(program)
    names = [found.attention.inputs[number].name for number in wanted]
    return found.refuse_gradients(names)


for _name, _kernel in (
    ("attention", _attention_autograd),
    ("attention_backward", _attention_backward_autograd),
):
    LIBRARY.impl(_name, _kernel, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]

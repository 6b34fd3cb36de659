"""Whether anyone but the program itself has to see a call of an operator.

In: the tensors of a call. Out: whether it must go through PyTorch's dispatcher, or may
run at once, which gives the same and costs a tenth of the time. Not its job: the
operators (`ops.operators`), autograd (`ops.function`).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd import forward_ad

_PLAIN = (Tensor, torch.nn.Parameter)
"""Types of tensors that are no more than their values."""


def is_watched(tensors: Iterable[Tensor]) -> bool:
    """Whether something is set up that acts on operators, or on one of the tensors.

    torch.compile and torch.export, torch.func, dispatch modes (fake tensors, the FLOP
    counter, selective checkpointing), torch function modes, torch.jit.trace, profilers;
    subclasses of tensors, and tensors whose values the dispatcher makes on the way.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._is_torch_function_mode_enabled()
        or torch._C._get_tracing_state() is not None
        or torch._C._autograd._profiler_enabled()
        or any(
            type(x) not in _PLAIN or x.is_meta or x.is_neg() or x._is_zerotensor()
            for x in tensors
        )
    )


def needs_gradient(tensors: Iterable[Tensor | None]) -> bool:
    """Whether autograd records a call: backward, or forward by dual numbers."""
    return forward_ad._current_level >= 0 or (
        torch.is_grad_enabled()
        and any(x is not None and x.requires_grad for x in tensors)
    )

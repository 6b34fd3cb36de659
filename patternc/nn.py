"""A module for models: an attention, with some of its inputs as parameters.

In: a pattern, and tensors for the floating inputs that are to be learned. Out: a
`torch.nn.Module`. Not its job: projections of q, k and v, which are the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from patternc.attention import Attention as Compiled
from patternc.functional import Pattern, fixed, sdpa


class Attention(torch.nn.Module):
    """`Attention("causal & window(256)")(q, k, v)`: `sdpa` with its pattern fixed.

    `learned` gives the initial values of floating inputs that become parameters of
    the module, each under its own name: sinks, slopes, gates, a bias table. All other
    inputs and run-time parameters are given at each call; `params` are static
    parameters. It can be copied and pickled; a file is read when the module is made.
    """

    def __init__(
        self,
        pattern: Pattern,
        *,
        scale: float | None = None,
        learned: Mapping[str, Tensor] | None = None,
        **params: float,
    ) -> None:
        super().__init__()
        self.pattern = fixed(pattern)
        self.scale = scale
        self.params = dict(params)
        self.learned = torch.nn.ParameterDict(dict(learned or {}))

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        return_lse: bool = False,
        q_offset: int | None = None,
        **given: float | Tensor,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """As `patternc.sdpa`, with the learned inputs added to `given`."""
        own = dict(self.learned.items())
        both = sorted(own.keys() & given.keys())
        if both:
            raise TypeError(f"`{both[0]}` is learned: expected no value for it")
        every = {**self.params, **own, **given}
        return sdpa(
            q, k, v, self.pattern, self.scale, return_lse, q_offset=q_offset, **every
        )

    def extra_repr(self) -> str:
        """The pattern, as `print` shows it."""
        shown = self.pattern
        return repr(shown) if isinstance(shown, Compiled) else " ".join(shown.split())

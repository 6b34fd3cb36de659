"""A module for models: an attention, with some of its inputs as parameters.

In: a pattern, and tensors for the floating inputs that are to be learned. Out: a
`torch.nn.Module`. Not its job: projections of q, k and v, which are the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from patternc.functional import Pattern, compile_pattern


class Attention(torch.nn.Module):
    """`Attention("causal & window(256)", heads=32, kv_heads=8)(q, k, v)`.

    `pattern` is what `patternc.sdpa` takes, compiled when the module is made; head
    counts are only needed where the program leaves them open. `learned` gives the
    first values of floating inputs that become parameters of the module, each under
    its own name: sinks, slopes, gates, a bias table. All other inputs and run-time
    parameters are given at each call; `params` are static parameters. It can be
    copied and pickled. Raises as `compile_pattern`.
    """

    def __init__(
        self,
        pattern: Pattern,
        heads: int | None = None,
        kv_heads: int | None = None,
        *,
        scale: float | None = None,
        learned: Mapping[str, Tensor] | None = None,
        **params: float,
    ) -> None:
        super().__init__()
        self.compiled = compile_pattern(pattern, heads, kv_heads, **params)
        self.scale = scale
        self.learned = torch.nn.ParameterDict(dict(learned or {}))

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        return_lse: bool = False,
        q_offset: int | None = None,
        **given: int | Tensor,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """As `patternc.Attention`, with the learned inputs added to `given`."""
        for name in self.learned:
            if name in given:
                raise TypeError(f"`{name}` is learned: expected no value for it")
        own = dict(self.learned.items())
        return self.compiled(  # type: ignore[call-overload, no-any-return]
            q,
            k,
            v,
            scale=self.scale,
            q_offset=q_offset,
            return_lse=return_lse,
            **own,
            **given,
        )

    def extra_repr(self) -> str:
        """What it computes, as `print` shows it."""
        return repr(self.compiled)

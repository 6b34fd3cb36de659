"""The systems of the suite, each as a function on tensors.

In: a row at one size, and tensors. Out: for each system what it must do once (compile,
build a mask) and the call that is timed. Not its job: the clock (`bench.measure`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from patternc import backends
from patternc.attention import Attention
from patternc.bench.blocks import block_mask
from patternc.bench.record import CUDNN, FA3, FLASH, FLEX, OURS, PEERS
from patternc.bench.suite import Pattern, Row, Sizes
from patternc.driver import Trace, trace_source
from patternc.plan.kernel import Schedule
from patternc.source import Source

Function = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k and v, each [B, H, N, D] -> [B, H, N, D]."""


class Absent(Exception):
    """A system that does not compute a row, or is not installed; the text says why."""


@dataclass(frozen=True, slots=True)
class Site:
    """A row at one size on one device, ready to be computed by anyone."""

    row: Row
    sizes: Sizes
    pattern: Pattern
    source: Source
    device: torch.device
    schedule: Schedule | None = None
    backend: str = "triton"

    @classmethod
    def of(
        cls,
        row: Row,
        sizes: Sizes,
        device: torch.device,
        schedule: Schedule | None = None,
    ) -> Site:
        """The site of a row; its inputs lie on `device`."""
        pattern = row.make(sizes, device)
        source = Source(f"{row.name}.pat", row.program(sizes, pattern))
        is_cuda = device.type == "cuda"
        own = backends.default_for("cuda") if is_cuda else "triton"
        return cls(row, sizes, pattern, source, device, schedule, own)

    def trace(self) -> Trace:
        """Our compilation."""
        return trace_source(self.source, schedule=self.schedule)

    def prepare(self, system: str) -> Function:
        """What a system does once. Raises `Absent`, or whatever stops it."""
        if system == OURS:
            return self._ours()
        if system == FLEX:
            return self._flex()
        if system not in PEERS:
            raise ValueError(f"systems are {(OURS, *PEERS)}; got {system}")
        if not self.row.sdpa:
            raise Absent("would need an n_q x n_k mask")
        if system == FA3:
            return self._fa3()
        return self._sdpa(
            {
                FLASH: SDPBackend.FLASH_ATTENTION,
                CUDNN: SDPBackend.CUDNN_ATTENTION,
            }[system]
        )

    def _ours(self) -> Function:
        backends.get_ready(self.backend)  # as `patternc.load` does
        attention = Attention(self.trace(), self.backend)
        # Values of any type: `Attention` also takes keywords that are no tensors.
        inputs: dict[str, Any] = dict(self.pattern.inputs)

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            found: Tensor = attention(q, k, v, **inputs)
            return found

        return attend

    def blocks(self, block: int = 128) -> BlockMask | None:
        """FlexAttention's block mask of the row; None for dense attention."""
        if self.pattern.flex is None:
            return None
        return block_mask(
            self.source,
            self.pattern.flex,
            self.sizes.length,
            self.pattern.inputs,
            per_head=self.row.per_head,
            device=self.device,
            block=block,
        )

    def _flex(self) -> Function:
        blocks = self.blocks()
        grouped = self.sizes.heads != self.sizes.kv_heads
        compiles = self.device.type == "cuda"
        flex = torch.compile(flex_attention, dynamic=False, disable=not compiles)

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return flex(q, k, v, block_mask=blocks, enable_gqa=grouped)

        return attend

    def _sdpa(self, backend: SDPBackend) -> Function:
        causal = self.row.sdpa == "causal"
        grouped = self.sizes.heads != self.sizes.kv_heads

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(
                    q, k, v, is_causal=causal, enable_gqa=grouped
                )

        return attend

    def _fa3(self) -> Function:
        """FlashAttention-3: tensors are [B, N, H, D], read here through strides."""
        try:
            module = importlib.import_module("fa3_fwd_interface")
        except ImportError as error:
            raise Absent(f"the package fa3_fwd is not usable: {error}") from None
        causal = self.row.sdpa == "causal"

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            rows = (x.transpose(1, 2) for x in (q, k, v))
            found = module.flash_attn_func(*rows, causal=causal)
            found = found[0] if isinstance(found, tuple) else found
            return Tensor.transpose(found, 1, 2)

        return attend

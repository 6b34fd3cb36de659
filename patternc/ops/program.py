"""The programs that the operators can run, by name.

In: a kernel and what a backend made of it. Out: a stable name, which is an argument of
the operators and is written into exported graphs, and `Program`: a call and its
gradients with plain lists for arguments. Not its job: PyTorch's registrations
(`ops.operators`), autograd (`ops.function`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from patternc.backends.planner import plan_tables
from patternc.backends.protocol import LoadedAttention, Plain, Planner, Trainable
from patternc.backends.reference import working_dtype
from patternc.backends.rows import unnormalised_heads
from patternc.diagnostics import Diagnostic
from patternc.ir.floats import scored_inputs
from patternc.ir.nodes import Attention, Element
from patternc.ir.selected import (
    placed_params,
)
from patternc.ops.settled import settled
from patternc.plan.kernel import Kernel
from patternc.version import VERSION

Function = TypeVar("Function", bound=Callable[..., object])

Kept = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]
"""Output, LSE, and for a backward pass the output and LSE before `finish`."""


def constant(function: Function) -> Function:
    """Mark what gives the same at every call: torch.compile asks it once, and does
    not look inside.

    As `torch.compiler.assume_constant_result` does, which imports torch._dynamo: more
    than a second that a program which compiles nothing would wait for.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@dataclass(frozen=True, slots=True)
class Site:
    """What a call says beside its tensors; `params` in the order of declaration."""

    params: tuple[int, ...]
    q_offset: int
    scale: float


@dataclass(frozen=True, slots=True)
class Program:
    """A loaded attention with a name. Lists of inputs are in the order of declaration.

    Whatever it returns is contiguous and shares no memory with an argument.
    """

    name: str
    kernel: Kernel
    loaded: LoadedAttention
    has_gradients: bool = field(init=False)
    """Whether there is a way to compute them."""
    keeps_core: bool = field(init=False)
    """Whether a backward pass needs the output and LSE before `finish`, too."""
    float_inputs: tuple[int, ...] = field(init=False)
    """The numbers of the floating inputs."""
    _trainable: Trainable | None = field(init=False)
    _has_lse: bool = field(init=False)
    _inputs: tuple[str, ...] = field(init=False)
    _params: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Ask once what every call would ask."""
        attention, loaded = self.attention, self.loaded
        trainable = loaded if isinstance(loaded, Trainable) else None
        changes = bool(attention.sinks or attention.outputs)
        found = {
            "has_gradients": trainable is not None or isinstance(loaded, Plain),
            "keeps_core": changes and trainable is not None,
            "float_inputs": tuple(
                number
                for number, item in enumerate(attention.inputs)
                if item.element is Element.FLOAT
            ),
            "_trainable": trainable,
            "_has_lse": not unnormalised_heads(attention),
            "_inputs": tuple(item.name for item in attention.inputs),
            "_params": tuple(item.name for item in attention.params),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)

    @property
    def attention(self) -> Attention:
        """What it computes."""
        return self.kernel.attention

    def refuse_gradients(self, wanted: Collection[str]) -> Diagnostic | None:
        """Why there are no gradients, or none of the inputs in `wanted`."""
        if self._trainable is not None:
            scored = scored_inputs(self.attention) if wanted else frozenset()
            return self._trainable.refuse_gradients(scored & frozenset(wanted))
        if self.has_gradients:
            return None
        message = f"`{self.name}` has no gradients"
        label = "its backend computes no backward pass"
        advice = 'call it under torch.no_grad(), or use backend="tiled"'
        return Diagnostic("unsupported", message, self.attention.span, label, advice)

    def run(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        inputs: Sequence[Tensor],
        site: Site,
        return_lse: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Output and LSE; without `return_lse` None in its place."""
        found = self.loaded(
            q,
            k,
            v,
            scale=site.scale,
            q_offset=site.q_offset,
            params=self._given(site),
            return_lse=return_lse,
            inputs=self._named(inputs),
        )
        if isinstance(found, Tensor):
            return settled(found), None
        return settled(found[0]), settled(found[1])

    @property
    def caller_params(self) -> tuple[str, ...]:
        """The run-time parameters that a caller gives, and no plan."""
        placed = placed_params(self.attention)
        return tuple(name for name in self._params if name not in placed)

    def plan(
        self, q: Tensor, k: Tensor, inputs: Sequence[Tensor], site: Site
    ) -> list[Tensor]:
        """The table of each selection, in order, by the backend's planner or PyTorch's.

        `inputs` and `site.params` are those of callers alone.
        """
        tables = {selection.table for selection in self.attention.selections}
        named = [name for name in self._inputs if name not in tables]
        own = partial(plan_tables, self.attention)
        planner = self.loaded.plan_tables if isinstance(self.loaded, Planner) else own
        found = planner(
            q,
            k,
            scale=site.scale,
            q_offset=site.q_offset,
            params=dict(zip(self.caller_params, site.params, strict=True)),
            inputs=dict(zip(named, inputs, strict=True)),
        )
        return [found[one.table] for one in self.attention.selections]

    def run_for_gradients(
        self, q: Tensor, k: Tensor, v: Tensor, inputs: Sequence[Tensor], site: Site
    ) -> Kept:
        """Everything that `gradients` needs; the last two are None without a core."""
        if self._trainable is None:
            output, lse = self.run(q, k, v, inputs, site, self._has_lse)
            return output, lse if self._has_lse else self.no_lse(q), None, None
        params, named = self._given(site), self._named(inputs)
        core, core_lse = self._trainable.attend(
            q,
            k,
            v,
            scale=site.scale,
            q_offset=site.q_offset,
            params=params,
            inputs=named,
        )
        if not self.keeps_core:
            return settled(core.to(q.dtype)), settled(core_lse), None, None
        output, lse = self._trainable.finish(
            core, core_lse, v, q_offset=site.q_offset, params=params, inputs=named
        )
        own = lse.clone() if lse is core_lse else lse
        output = output.clone() if output is core else output
        results = (output.to(q.dtype), own, core.to(q.dtype), core_lse)
        return tuple(settled(x) for x in results)  # type: ignore[return-value]

    def gradients(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        inputs: Sequence[Tensor],
        kept: tuple[Tensor, Tensor],
        d_out: Tensor | None,
        d_lse: Tensor | None,
        site: Site,
        wanted: Sequence[int],
    ) -> list[Tensor]:
        """Those of `q`, `k`, `v` and of the inputs numbered in `wanted`.

        `kept` are output and LSE, those before `finish` where there is a core.
        """
        names = [self.attention.inputs[number].name for number in wanted]
        if self._trainable is not None:
            found = self._trained(q, k, v, inputs, kept, d_out, d_lse, site, names)
        else:
            found = self._recomputed(q, k, v, inputs, d_out, d_lse, site, names)
        return [settled(x) for x in found]

    def no_lse(self, q: Tensor) -> Tensor:
        """NaN [B, H, n_q]: that of weights without a sum."""
        shape, dtype = q.shape[:3], working_dtype(q.dtype)
        return torch.full(shape, torch.nan, dtype=dtype, device=q.device)

    def _trained(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        inputs: Sequence[Tensor],
        kept: tuple[Tensor, Tensor],
        d_out: Tensor | None,
        d_lse: Tensor | None,
        site: Site,
        names: Sequence[str],
    ) -> list[Tensor]:
        assert self._trainable is not None
        scored = scored_inputs(self.attention) if names else frozenset()
        named, extra = self._named(inputs), dict[str, Tensor]()
        d_own: Tensor | None = None
        out, lse = kept
        if self.keeps_core:
            d_out, d_lse, d_own, extra = self._through_finish(
                v, named, kept, d_out, d_lse, site, names
            )
        d_q, d_k, d_v, own = self._trainable.gradients(
            q,
            k,
            v,
            out,
            lse,
            torch.zeros_like(out) if d_out is None else d_out,
            d_lse,
            scale=site.scale,
            q_offset=site.q_offset,
            params=self._given(site),
            inputs=named,
            wanted=[name for name in names if name in scored],
        )
        found = [d_q, d_k, d_v if d_own is None else d_v + d_own]
        for name in names:
            total = torch.zeros_like(named[name])
            for part in (each[name] for each in (own, extra) if name in each):
                total = total + part
            found.append(total)
        return found

    def _through_finish(
        self,
        v: Tensor,
        named: Mapping[str, Tensor],
        kept: tuple[Tensor, Tensor],
        d_out: Tensor | None,
        d_lse: Tensor | None,
        site: Site,
        names: Sequence[str],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, dict[str, Tensor]]:
        """The gradients of the core's output and LSE, of `v` and of inputs."""
        assert self._trainable is not None
        wide = kept[1].dtype
        with torch.enable_grad():
            core, lse, values = (_leaf(x) for x in (kept[0].to(wide), kept[1], v))
            leaves = {name: _leaf(named[name]) for name in names}
            results = self._trainable.finish(
                core,
                lse,
                values,
                q_offset=site.q_offset,
                params=self._given(site),
                inputs={**named, **leaves},
            )
            sources = [core, lse, values, *leaves.values()]
            d_core, d_core_lse, d_v, *others = _pull(results, (d_out, d_lse), sources)
        extra = {
            name: item
            for name, item in zip(names, others, strict=True)
            if item is not None
        }
        narrow = None if d_core is None else d_core.to(kept[0].dtype)
        return narrow, d_core_lse, d_v, extra

    def _recomputed(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        inputs: Sequence[Tensor],
        d_out: Tensor | None,
        d_lse: Tensor | None,
        site: Site,
        names: Sequence[str],
    ) -> list[Tensor]:
        """By computing the whole call again, with autograd."""
        with torch.enable_grad():
            tensors = [_leaf(x) for x in (q, k, v)]
            named = self._named(inputs)
            leaves = {name: _leaf(named[name]) for name in names}
            results = self.loaded(
                *tensors,
                scale=site.scale,
                q_offset=site.q_offset,
                params=self._given(site),
                return_lse=True,
                inputs={**named, **leaves},
            )
            assert isinstance(results, tuple)
            sources = [*tensors, *leaves.values()]
            found = _pull(results, (d_out, d_lse), sources)
        return [
            torch.zeros_like(source) if item is None else item
            for source, item in zip(sources, found, strict=True)
        ]

    def _named(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self._inputs, inputs, strict=True))

    def _given(self, site: Site) -> dict[str, int]:
        return dict(zip(self._params, site.params, strict=True))


_PROGRAMS: dict[str, Program] = {}


def add_program(kernel: Kernel, backend: str, loaded: LoadedAttention) -> Program:
    """The program of this kernel and backend; made once, known for good."""
    name = program_name(kernel, backend)
    if name not in _PROGRAMS:
        _PROGRAMS[name] = Program(name, kernel, loaded)
    return _PROGRAMS[name]


def program_of(name: str) -> Program:
    """The program of that name. Raises `LookupError` if this process has none."""
    if name not in _PROGRAMS:
        entry, backend, _ = name.rsplit(".", 2)
        raise LookupError(
            f"the program {name!r} is not loaded: before running an exported graph,"
            f" load `{entry}` as it was, with"
            f" patternc.load(path, {entry!r}, backend={backend!r}, ...)"
        )
    return _PROGRAMS[name]


def program_name(kernel: Kernel, backend: str) -> str:
    """The same in every process: entry, backend, and a hash of the whole kernel."""
    text = f"{VERSION} {kernel!r}".encode()
    digest = hashlib.sha256(text).hexdigest()[:16]
    return f"{kernel.attention.name}.{backend}.{digest}"


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_()


def _pull(
    results: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    sources: Sequence[Tensor],
) -> list[Tensor | None]:
    """The gradients of `sources`, None where nothing depends on one."""
    used = [
        (result, gradient.to(result.dtype))
        for result, gradient in zip(results, gradients, strict=True)
        if gradient is not None and result.requires_grad
    ]
    if not used:
        return [None] * len(sources)
    ends, starts = zip(*used, strict=True)
    return list(torch.autograd.grad(ends, sources, starts, allow_unused=True))

"""An attention of a package, ready to be called.

In: the path of a package. Out: `PackagedAttention`, as `patternc.load` would give it on
a GPU. Not its job: kernels (`launch`), what is launched for a call (`host`).
"""

from __future__ import annotations

import os
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .driver import Driver, driver
from .format import PackageError
from .instance import host_of
from .launch import Code
from .manifest import Manifest
from .package import Package, read_package
from .plans import PackagedPlan, checked_plan

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load(path: str | os.PathLike[str]) -> PackagedAttention:
    """The attention of a package. Needs no GPU until it is called.

    Raises `OSError`, and `PackageError` for what is no sound package.
    """
    return PackagedAttention(read_package(path))


class PackagedAttention:
    """A compiled attention: `attn(q, k, v)`. Several threads may call it at once.

    Code is loaded when a device first needs it; `prepare` loads all of it before, as a
    capture of a CUDA graph needs.
    """

    def __init__(self, package: Package, own: Driver | None = None) -> None:
        """`own` is the driver to use; that of torch unless given."""
        self.package = package
        self._driver = own
        self._host: Any = None
        self._code: Code | None = None

    @property
    def name(self) -> str:
        """The name in the `.pat` file."""
        return self.package.manifest.facts.name

    @property
    def manifest(self) -> Manifest:
        """What the package says of itself."""
        return self.package.manifest

    @overload
    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float | None = None,
        q_offset: int | None = None,
        return_lse: Literal[False] = False,
        lengths: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        plan: PackagedPlan | None = None,
        **given: int | Tensor,
    ) -> Tensor: ...

    @overload
    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float | None = None,
        q_offset: int | None = None,
        return_lse: Literal[True],
        lengths: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        plan: PackagedPlan | None = None,
        **given: int | Tensor,
    ) -> tuple[Tensor, Tensor]: ...

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float | None = None,
        q_offset: int | None = None,
        return_lse: bool = False,
        lengths: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        plan: PackagedPlan | None = None,
        **given: int | Tensor,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The output [B, H, n_q, D_v], and with `return_lse` the LSE [B, H, n_q] too.

        Arguments are those of `patternc.load`'s attention, on a GPU: `q` [B, H, n_q, D],
        `k` [B, KV, n_k, D], `v` [B, KV, n_k, D], of a dtype and head size that the
        package was built for; tensors whose rows do not start on 16 bytes, or are not
        contiguous, are copied. `scale` must be positive. `given` are run-time parameters
        and inputs; integer inputs have 32 bits or fewer. A program that selects chooses
        anew unless a `plan` is given. Differentiable in a package with gradients, also
        by floating inputs. Raises `TypeError` or `ValueError` that
        names the argument, `PackageError` for what the package has no code for.
        """
        if return_lse and not self.manifest.facts.has_lse:
            raise ValueError(
                f"{self.name}: `return_lse`: heads whose weights are no softmax have none"
            )
        named: dict[str, Any] = {
            "scale": scale,
            "q_offset": q_offset,
            "lengths": lengths,
            "cu_seqlens": cu_seqlens,
            "max_seqlen": max_seqlen,
            **self._planned(q, k, scale, q_offset, plan, given),
        }
        wanted: tuple[str, ...] = ()
        needs = torch.is_grad_enabled()
        if needs:
            wanted = tuple(name for name, x in given.items() if _needs_gradient(x))
            needs = bool(wanted) or any(_needs_gradient(x) for x in (q, k, v))
        if needs:
            output, lse = self._watched(q, k, v, named, wanted)
        else:
            output, lse = self.forward(q, k, v, **named)
        return (output, lse) if return_lse else output

    def _watched(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        named: dict[str, Any],
        wanted: tuple[str, ...],
    ) -> tuple[Tensor, Tensor]:
        """A call that autograd sees."""
        self._refuse_gradient()
        changes = self.manifest.facts.changes_rows
        if changes and (
            named["lengths"] is not None or named["cu_seqlens"] is not None
        ):
            raise ValueError(
                f"{self.name}: `lengths`, `cu_seqlens`: expected no gradient to be asked"
                " for, as the program has sinks or outputs; call it under torch.no_grad()"
            )
        named = self._checked(q, k, v, named) if wanted else named
        own = [named[name] for name in wanted]
        output, lse = _Step.apply(self, named, wanted, q, k, v, *own)  # type: ignore[no-untyped-call]
        return self.finish(output, lse, v, **named) if changes else (output, lse)

    def plan(
        self,
        q: Tensor,
        k: Tensor,
        *,
        scale: float | None = None,
        q_offset: int | None = None,
        **params: int,
    ) -> PackagedPlan:
        """What the selections choose: `attn(q, k, v, plan=plan)`, again and again.

        Arguments as for a call; `params` are run-time parameters, of which those that
        choose are read. Nothing waits for the device. Raises as a call does, and
        `ValueError` for a program that selects nothing.
        """
        facts = self.manifest.facts
        if facts.plan is None:
            raise ValueError(f"{facts.name}: the program selects nothing to plan")
        host = self._ready()
        q, k = _readable(host, q, k)
        self._check_served({"q": q, "k": k}, {"scale": scale})
        own = {name: x for name, x in params.items() if name in facts.plan.params}
        found = host.plan(q, k, scale=scale, q_offset=q_offset, **own)
        offset = k.shape[2] - q.shape[2] if q_offset is None else q_offset
        sizes = (q.shape[0], q.shape[2], k.shape[2], offset)
        values = {**facts.plan.params, **own}
        return PackagedPlan(self.package, found, sizes, q.dtype, values)

    def _planned(
        self,
        q: Tensor,
        k: Tensor,
        scale: float | None,
        q_offset: int | None,
        plan: PackagedPlan | None,
        given: dict[str, Any],
    ) -> dict[str, Any]:
        """The parameters and inputs of a call, with what a plan chose."""
        facts = self.manifest.facts
        if facts.plan is None:
            if plan is not None:
                raise TypeError(f"{facts.name}: `plan`: the program selects nothing")
            return given
        for name in given:
            if name in self._ready().PLACES or name in self._ready().MADE_INPUTS:
                raise TypeError(f"{facts.name}: `{name}` is what a plan chooses")
        own = {name: x for name, x in given.items() if name in facts.plan.params}
        rest = {name: x for name, x in given.items() if name not in facts.plan.params}
        rest |= {name: x for name, x in own.items() if name in facts.params}
        if plan is None:
            plan = self.plan(q, k, scale=scale, q_offset=q_offset, **own)
            return {**rest, **plan.found}
        values = {**facts.plan.params, **own}
        return {**rest, **checked_plan(plan, self.package, q, k, q_offset, values)}

    def _checked(
        self, q: Tensor, k: Tensor, v: Tensor, named: dict[str, Any]
    ) -> dict[str, Any]:
        """The arguments of a call whose inputs are as kernels read them.

        By operations that gradients pass; each has its batch axis where it is declared.
        """
        host, own = self._ready(), dict(named)
        _, offset = host.check_call(
            self.name,
            q,
            k,
            v,
            heads=host.HEADS,
            kv_heads=host.KV_HEADS,
            scale=named["scale"],
            q_offset=named["q_offset"],
            largest_dim=host.LARGEST_DIM,
            dtypes=host.DTYPES,
        )
        for name, tensor in host.checked_inputs(q, k, offset, own).items():
            own[name] = tensor.movedim(0, host.BATCH_AXES[name])
        return own

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, **given: Any
    ) -> tuple[Tensor, Tensor]:
        """Output and LSE, outside of autograd; arguments as for a call.

        Of a program that selects, `given` has what a plan chose, too.
        """
        host = self._ready()
        q, k, v = _readable(host, q, k, v)
        self._check_served({"q": q, "v": v}, given)
        own = self._as_built(given)
        output, lse = host.forward(q, k, v, return_lse=True, **own)
        return output, lse

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, **given: Any
    ) -> tuple[Tensor, Tensor]:
        """The same before sinks and `output` clauses, as `finish` and `gradients` take it."""
        host = self._ready()
        q, k, v = _readable(host, q, k, v)
        self._check_served({"q": q, "v": v}, given)
        output, lse = host.attend(q, k, v, **self._as_built(given))
        return output, lse

    def finish(
        self,
        out: Tensor,
        lse: Tensor,
        v: Tensor,
        *,
        q_offset: int | None = None,
        **given: Any,
    ) -> tuple[Tensor, Tensor]:
        """Sinks and `output` clauses, in operations that autograd follows.

        `out` and `lse` are what `attend` gave for `v` and the `given` of the same call.
        """
        host, facts = self._ready(), self.manifest.facts
        names = {*facts.params, *(item.name for item in facts.inputs)}
        own = {name: x for name, x in self._as_built(given).items() if name in names}
        output, own_lse = host.finish(out, lse, v, q_offset=q_offset, **own)
        return output, own_lse

    def gradients(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        d_out: Tensor,
        d_lse: Tensor | None,
        wanted: tuple[str, ...] = (),
        **given: Any,
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """dq, dk, dv and the gradients of the `wanted` inputs, as they are declared.

        `out` and `lse` are what `attend` gave for the same call.
        """
        self._refuse_gradient()
        host = self._ready()
        q, k, v, d_out = _readable(host, q, k, v, d_out)
        self._check_served({"q": q, "v": v}, given)
        own = self._as_built(given)
        scored = tuple(name for name in wanted if name in host.READS)
        found = host.gradients(q, k, v, out, lse, d_out, d_lse, scored, **own)
        inputs = {
            name: x.movedim(0, host.BATCH_AXES[name]) for name, x in found[3].items()
        }
        for name in wanted:
            if name not in inputs:  # no score reads it
                inputs[name] = torch.zeros_like(given[name])
        return found[0], found[1], found[2], inputs

    def _as_built(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments with integer inputs of the width that kernels read."""
        inputs = self.manifest.facts.inputs
        own = dict(given) if inputs else given
        for item in inputs:
            tensor = given.get(item.name)
            if item.element != "int" or not isinstance(tensor, Tensor):
                continue
            if tensor.dtype in (torch.int8, torch.int16, torch.uint8):
                own[item.name] = tensor.to(torch.int32)
            elif tensor.dtype == torch.int64:
                raise PackageError(
                    f"{self.name}: `{item.name}`: built for integers of 32 bits, got"
                    f" {tensor.dtype}; give it as `{item.name}.to(torch.int32)`"
                )
        return own

    def prepare(self, device: int | None = None) -> None:
        """Load all code of a GPU, of the current one unless given."""
        self._ready()
        assert self._code is not None
        with torch.cuda.device(
            self._code.driver.device() if device is None else device
        ):
            number = self._code.driver.device()
            target = self._code.choice(number).target
            for at, variant in enumerate(self.manifest.variants):
                if variant.target == target:
                    self._code.load(at, number)
            for lists in self.manifest.facts.lists:
                own, size = torch.device("cuda", number), lists.length
                self._host.stored_lists(size, size, 0, own)

    def _ready(self) -> Any:
        """The host code of this attention; made when it is first called."""
        if self._host is None:
            code = Code(self.package, self._driver or driver())
            # Two threads may both come here: each finds a whole one, one is kept.
            self._host, self._code = host_of(self.package, code), code
        return self._host

    def _refuse_gradient(self) -> None:
        if not self.manifest.backward:
            raise ValueError(
                f"{self.name}: `q`, `k`, `v`: expected no gradient to be asked for, as the"
                " package has none; build it with --backward"
            )

    def _check_served(self, own: dict[str, Tensor], given: dict[str, Any]) -> None:
        """Say in words what the package was not built for; `q` is among `own`."""
        manifest, facts, q = self.manifest, self.manifest.facts, own["q"]
        if not all(isinstance(x, Tensor) for x in own.values()):
            return  # the checks say what is wrong
        dtypes = [_DTYPES[word] for word in manifest.dtypes]
        if q.dtype not in dtypes:
            built = ", ".join(map(str, dtypes))
            raise PackageError(f"{facts.name}: built for {built}, and `q` is {q.dtype}")
        for argument, tensor in own.items():
            dim = tensor.shape[-1] if tensor.dim() == 4 else q.shape[-1]
            if dim not in manifest.head_dims or dim != q.shape[-1]:
                built = ", ".join(map(str, manifest.head_dims))
                raise PackageError(
                    f"{facts.name}: built for head sizes {built}, and `{argument}` has {dim}"
                )
        scale = given.get("scale")
        if isinstance(scale, int | float) and not scale > 0:
            raise PackageError(f"{facts.name}: built for positive scales, got {scale}")


class _Step(torch.autograd.Function):
    """A call that autograd watches; `wanted` are the inputs that have gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        attention: PackagedAttention,
        given: dict[str, Any],
        wanted: tuple[str, ...],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *inputs: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Output and LSE."""
        own = {**given, **dict(zip(wanted, inputs, strict=True))}
        output, lse = attention.attend(q, k, v, **own)
        ctx.save_for_backward(q, k, v, output, lse, *inputs)
        ctx.set_materialize_grads(False)
        ctx.told = attention, {x: given[x] for x in given if x not in wanted}, wanted
        return output, lse

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_out: Tensor | None, d_lse: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The gradients of `q`, `k`, `v` and the wanted inputs."""
        attention, given, wanted = ctx.told
        q, k, v, output, lse, *inputs = ctx.saved_tensors
        own = torch.zeros_like(output) if d_out is None else d_out
        given = {**given, **dict(zip(wanted, inputs, strict=True))}
        found = attention.gradients(q, k, v, output, lse, own, d_lse, wanted, **given)
        return None, None, None, *found[:3], *(found[3][name] for name in wanted)


def _needs_gradient(x: object) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _readable(host: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors, or copies that every kernel can read fast."""
    if not all(isinstance(x, Tensor) and x.dim() == 4 for x in tensors):
        return tensors  # the checks say what is wrong
    if host.access_of(*tensors) != "any":
        return tensors
    return tuple(_copied(x) if host.access_of(x) == "any" else x for x in tensors)


def _copied(x: Tensor) -> Tensor:
    """Rows of some head sizes never start on 16 bytes: only the first one has to."""
    if x.is_contiguous() and x.data_ptr() % 16 == 0:
        return x
    return torch.empty(x.shape, dtype=x.dtype, device=x.device).copy_(x)

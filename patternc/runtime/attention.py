"""An attention of a package, ready to be called.

In: the path of a package. Out: `PackagedAttention`, as `patternc.load` would give it on
a GPU. Not its job: kernels (`launch`), what is launched for a call (`host`).
"""

from __future__ import annotations

import os
from typing import Any, Literal, overload

import torch
from torch import Tensor

from .cheaper import Decisions
from .driver import Driver, driver
from .instance import host_of
from .launch import Code
from .manifest import Manifest
from .package import Package, read_package
from .plans import PackagedPlan, checked_plan
from .prices import COLUMNS
from .served import as_built, check_served, readable
from .training import Step, needs_gradient


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
        dense = package.dense
        self.dense = None if dense is None else PackagedAttention(dense, own)
        self._decisions = Decisions(package.manifest)

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
        anew unless a `plan` is given, or `is_dense` holds. Differentiable in a package with gradients, also
        by floating inputs. Raises `TypeError` or `ValueError` that
        names the argument, `PackageError` for what the package has no code for.
        """
        if (
            plan is None
            and self.dense is not None
            and self._is_dense(q, k, q_offset, given)
        ):
            told: dict[str, Any] = {"scale": scale, "q_offset": q_offset, **given}
            told |= {"lengths": lengths, "cu_seqlens": cu_seqlens}
            dense: Any = self.dense
            found: Tensor | tuple[Tensor, Tensor] = dense(
                q, k, v, return_lse=return_lse, max_seqlen=max_seqlen, **told
            )
            return found
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
            wanted = tuple(name for name, x in given.items() if needs_gradient(x))
            needs = bool(wanted) or any(needs_gradient(x) for x in (q, k, v))
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
        output, lse = Step.apply(self, named, wanted, q, k, v, *own)  # type: ignore[no-untyped-call]
        return self.finish(output, lse, v, **named) if changes else (output, lse)

    def is_dense(
        self,
        n_q: int,
        n_k: int,
        q_offset: int,
        head_dim: int = COLUMNS,
        **params: int,
    ) -> bool:
        """Whether a call of these sizes, without a plan, is computed without choosing.

        Only where the program says `else dense when cheaper`; as `patternc.load` decides.
        """
        return self._decisions.found(n_q, n_k, q_offset, head_dim, params)

    def _is_dense(
        self, q: Tensor, k: Tensor, q_offset: int | None, given: dict[str, Any]
    ) -> bool:
        """The same of a call, after its checks."""
        host, facts = self._ready(), self.manifest.facts
        check_served(self.manifest, {"q": q, "k": k}, {})
        heads = {"heads": facts.heads, "kv_heads": facts.kv_heads}
        _, offset = host.check_call(self.name, q, k, k, q_offset=q_offset, **heads)
        named = self._decisions.params
        own = {name: x for name, x in given.items() if name in named}
        values = host.check_params(self.name, named, own)
        return self.is_dense(q.shape[2], k.shape[2], offset, q.shape[3], **values)

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
        q, k = readable(host, q, k)
        check_served(self.manifest, {"q": q, "k": k}, {"scale": scale})
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
        q, k, v = readable(host, q, k, v)
        check_served(self.manifest, {"q": q, "v": v}, given)
        own = as_built(self.manifest, given)
        output, lse = host.forward(q, k, v, return_lse=True, **own)
        return output, lse

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, **given: Any
    ) -> tuple[Tensor, Tensor]:
        """The same before sinks and `output` clauses, as `finish` and `gradients` take it."""
        host = self._ready()
        q, k, v = readable(host, q, k, v)
        check_served(self.manifest, {"q": q, "v": v}, given)
        output, lse = host.attend(q, k, v, **as_built(self.manifest, given))
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
        own = {
            name: x
            for name, x in as_built(self.manifest, given).items()
            if name in names
        }
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
        q, k, v, d_out = readable(host, q, k, v, d_out)
        check_served(self.manifest, {"q": q, "v": v}, given)
        own = as_built(self.manifest, given)
        scored = tuple(name for name in wanted if name in host.READS)
        found = host.gradients(q, k, v, out, lse, d_out, d_lse, scored, **own)
        inputs = {
            name: x.movedim(0, host.BATCH_AXES[name]) for name, x in found[3].items()
        }
        for name in wanted:
            if name not in inputs:  # no score reads it
                inputs[name] = torch.zeros_like(given[name])
        return found[0], found[1], found[2], inputs

    def prepare(self, device: int | None = None) -> None:
        """Load all code of a GPU, of the current one unless given."""
        if self.dense is not None:
            self.dense.prepare(device)
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

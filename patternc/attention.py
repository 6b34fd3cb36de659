"""The object that a user calls.

In: every stage of a program's compilation, a backend's name. Out: `Attention`, called
on tensors, and what can be asked of it. Not its job: reading a file
(`patternc.loading`), any stage of the compiler (`patternc.driver`), the computation
(`patternc.backends`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import torch
from torch import Tensor

from patternc import backends, driver
from patternc.backends.checks import check_lse
from patternc.backends.key_ranges import CallSizes
from patternc.call_data import check_data
from patternc.contract import Contract, contract_of
from patternc.diagnostics import PatternError
from patternc.ir.selected import dense_alternative
from patternc.masks import dense_masks
from patternc.ops.function import autocast, call
from patternc.ops.program import Program, Site, add_program, constant
from patternc.plan.cheaper import costs
from patternc.plan.kernel import Kernel
from patternc.planned import Plan, check_plan, load_plan, needed_plan
from patternc.planning import made_plan


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Attention:
    """A compiled attention: `attn(q, k, v)`.

    Made by `patternc.load`. Never changes: `schedule` and `backend` return another
    one. `trace` holds every stage of its compilation.
    """

    trace: driver.Trace
    backend_name: str | None = None
    _loaded: dict[str, Program] = field(default_factory=dict)
    _dense: list[Attention] = field(default_factory=list)
    _cheaper: dict[Any, bool] = field(default_factory=dict)
    _contract: Contract = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_contract", contract_of(self.kernel.attention))

    @property
    def name(self) -> str:
        """The name in the `.pat` file."""
        return self.kernel.attention.name

    @property
    def kernel(self) -> Kernel:
        """What the backends start from."""
        return self.trace.kernel

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
        check: bool = False,
        plan: Plan | None = None,
        lengths: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
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
        check: bool = False,
        plan: Plan | None = None,
        lengths: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
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
        check: bool = False,
        plan: Plan | None = None,
        lengths: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        max_seqlen: int | None = None,
        **given: int | Tensor,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The output [B, H, n_q, D_v], and with `return_lse` the LSE [B, H, n_q] too.

        `q` is [B, H, n_q, D], `k` [B, KV, n_k, D] and `v` [B, KV, n_k, D_v]; one
        floating dtype, one device, any strides. The query in row `r` stands at `r + q_offset`; the default
        n_k - n_q aligns the last query with the last key. `scale` is 1/sqrt(D) unless
        given. `given` are values of run-time parameters, and a tensor for each input,
        shaped as declared, with or without a leading batch axis of 1 or B. The LSE is
        natural, float64 for float64 inputs, else float32. A row without keys gives 0
        and -inf.

        `lengths` [B] are those of padded sequences: keys from there on are invisible,
        and rows give 0 and -inf. `cu_seqlens` [count + 1] says where sequences start
        that lie end to end in one batch element, the end last; none is longer than
        `max_seqlen`. Each sequence is an attention of its own, square, with positions
        and `N` of its own.

        A program that selects chooses its keys first, unless `plan` says what `plan()`
        chose before, for a call of the same sizes; with `else dense when cheaper` in it,
        not where `is_dense` holds.

        With `check` the values of inputs are looked at too: NaN and infinities, what
        is declared sorted, `valid` lengths, NaN among what selections rank, and every assertion that only data can decide. That waits
        for the device and makes dense masks: it is for debugging.

        Raises `TypeError` or `ValueError` that names the argument, `PatternError` if
        the backend cannot run this program.
        """
        contract = self._contract
        q, k, v = autocast(q, k, v)
        factor, offset = contract.resolve(q, k, v, scale, q_offset)
        n_k = k.shape[2]
        told: dict[str, Any]
        if plan is None and self.is_dense(q.shape[2], n_k, offset, q.shape[3], **given):
            told = {"scale": factor, "q_offset": offset, **given}
            told |= {"lengths": lengths, "cu_seqlens": cu_seqlens}
            told["max_seqlen"] = max_seqlen
            if return_lse:
                return self.dense()(q, k, v, return_lse=True, check=check, **told)
            dense: Tensor = self.dense()(q, k, v, check=check, **told)
            return dense
        if return_lse:
            check_lse(contract.name, contract.unnormalised)
        values = contract.values(given)
        inputs = contract.tensors(given, q, n_k, offset)
        if self.selects:
            made = self._plan(q, k, factor, offset, values, inputs, plan, check)
            attention = self.kernel.attention
            every = {**values, **made.places}
            values = {item.name: every[item.name] for item in attention.params}
            inputs = {**inputs, **made.tables}
        elif plan is not None:
            came = "`plan`: expected none, as this program selects nothing"
            raise TypeError(f"{self.name}: {came}")
        if check:
            sizes = CallSizes(q.shape[2], n_k, offset)
            check_data(self.trace, inputs, q, sizes, values)
        sequences = contract.sequences(q, n_k, offset, lengths, cu_seqlens, max_seqlen)
        if sequences is not None:  # outside the operators, whose schema has no lengths
            name = self.backend_name or backends.default_for(q.device.type)
            told = {"scale": factor, "q_offset": offset, "sequences": sequences}
            told |= {"params": values, "inputs": inputs}
            return self._load(name).loaded(q, k, v, return_lse=bool(return_lse), **told)
        site = Site(tuple(values.values()), offset, factor)
        program, own = self.program(q.device.type), tuple(inputs.values())
        output, lse = call(q, k, v, own, program, site, bool(return_lse))
        if not return_lse:
            return output
        assert lse is not None
        return output, lse

    @property
    def selects(self) -> bool:
        """Whether keys are chosen at run time."""
        return bool(self.kernel.attention.selections)

    def is_dense(
        self,
        n_q: int,
        n_k: int,
        q_offset: int,
        head_dim: int | None = None,
        /,
        **given: int | Tensor,
    ) -> bool:
        """Whether a call of these sizes, without a plan, is computed without choosing.

        Only where the program says `else dense when cheaper`, and the cost model
        (`patternc.plan.cheaper`) finds that it is, for a usual head size unless given.
        """
        attention = self.kernel.attention
        if not attention.dense_cases:
            return False
        values = self._contract.values(given)
        return self._decide(n_q, n_k, q_offset, head_dim, tuple(values.values()))

    @constant
    def _decide(
        self,
        n_q: int,
        n_k: int,
        q_offset: int,
        head_dim: int | None,
        values: tuple[int, ...],
    ) -> bool:
        """`is_dense`, for run-time parameters in their order."""
        call = (n_q, n_k, q_offset, head_dim, values)
        if call not in self._cheaper:
            attention = self.kernel.attention
            params = tuple(zip(self._contract.params, values, strict=True))
            sizes = (n_q, n_k, q_offset, params)
            found = costs(attention, *sizes, head_dim=head_dim)
            allowed = dense_alternative(attention) is not None
            self._cheaper[call] = found.is_dense_cheaper and allowed
        return self._cheaper[call]

    def dense(self) -> Attention:
        """The attention that chooses nothing, for `else dense when cheaper`.

        Raises `ValueError` if the program does not allow it.
        """
        if not self._dense:
            trace = driver.dense_trace(self.trace)
            if trace is None:
                came = "this program has no `else dense when cheaper`"
                raise ValueError(f"{self.name}: {came}")
            self._dense.append(Attention(trace, self.backend_name))
        return self._dense[0]

    def plan(
        self,
        q: Tensor,
        k: Tensor,
        *,
        scale: float | None = None,
        q_offset: int | None = None,
        check: bool = False,
        **given: int | Tensor,
    ) -> Plan:
        """What the selections choose for a call: `attn(q, k, v, plan=plan)`.

        The arguments are those of a call. The plan stays on the device, and nothing
        waits for it. With `check`, NaN among the numbers that are ranked is an error;
        else NaN comes after every number. Raises as a call does, and `TypeError` for a
        program that selects nothing.
        """
        if not self.selects:
            raise TypeError(
                f"{self.name}: this program selects nothing: no plan is made"
            )
        contract = self._contract
        q, k, _ = autocast(q, k, k)
        factor, offset = contract.resolve(q, k, k, scale, q_offset)
        values = contract.values(given)
        inputs = contract.tensors(given, q, k.shape[2], offset)
        return self._plan(q, k, factor, offset, values, inputs, None, check)

    def load_plan(
        self, path: str | os.PathLike[str], device: torch.device | str = "cpu"
    ) -> Plan:
        """A plan that `Plan.save` wrote, of this program.

        Raises `ValueError` for what is no such plan, `OSError` if it cannot be read.
        """
        return load_plan(self.kernel.attention, path, device)

    def _plan(
        self,
        q: Tensor,
        k: Tensor,
        scale: float,
        q_offset: int,
        values: Mapping[str, int],
        inputs: Mapping[str, Tensor],
        given: Plan | None,
        check: bool,
    ) -> Plan:
        """The plan of a checked call, made or given."""
        attention = self.kernel.attention
        if given is not None:
            sizes = CallSizes(q.shape[2], k.shape[2], q_offset)
            return check_plan(self.name, attention, given, q, sizes, values)
        program = self.program(q.device.type)
        return made_plan(
            attention, program, q, k, scale, q_offset, values, inputs, check
        )

    @constant
    def program(self, device: str = "cpu") -> str:
        """The name that the operators know it by on a device; loads its backend.

        It is an argument of `torch.ops.patternc.attention` in a compiled or exported
        graph. Raises `PatternError` if the backend cannot run this program.
        """
        name = self.backend_name or backends.default_for(device)
        return self._load(name).name

    def mask(
        self,
        n_q: int,
        n_k: int,
        q_offset: int | None = None,
        plan: Plan | None = None,
        **given: int | Tensor,
    ) -> Tensor:
        """The visible pairs of all heads, bool [H, n_q, n_k], on the CPU.

        If an input has a batch axis, [B, H, n_q, n_k]. Floating inputs may be left out:
        no mask reads them. A program that selects needs its `plan`. From the definition,
        not from the schedule. The default offset is n_k - n_q.
        """
        sizes = self._contract.sizes(n_q, n_k, q_offset)
        values, tables = self._contract.values(given), None
        if self.selects:
            made = needed_plan(self.kernel.attention, plan, sizes, values)
            values, tables = {**values, **made.places}, made.to("cpu").tables
        return dense_masks(
            self.trace.attention, self._contract.inputs, sizes, values, given, tables
        )

    def schedule(
        self,
        *,
        block_q: int | None = None,
        block_k: int | None = None,
        warps: int | None = None,
        stages: int | None = None,
    ) -> Attention:
        """The same attention with another schedule; what is None stays.

        Raises `ValueError` for blocks that are no power of two from 16 to 1024, warps
        that are none from 1 to 32 and stages outside 1 to 8, `TypeError` for what is
        no integer.
        """
        tile = {"block_q": block_q, "block_k": block_k}
        numbers = {**tile, "warps": warps, "stages": stages}
        given = {name: value for name, value in numbers.items() if value is not None}
        other = Attention(driver.rescheduled(self.trace, **given))
        name = self.backend_name
        return other if name is None else other.backend(name)

    def backend(self, name: str) -> Attention:
        """The same attention, always run by this backend.

        Raises `ValueError` for an unknown name, `PatternError` if the backend cannot
        run this program.
        """
        other = Attention(self.trace, name)
        other._load(name)
        return other

    def explain(self) -> str:
        """What each stage made of the program, to read."""
        from patternc.explain import as_text, explain  # sympy, which a call needs not

        return as_text(explain(self.trace))

    def __repr__(self) -> str:
        attention, schedule = self.kernel.attention, self.kernel.schedule
        backend = self.backend_name or "by device"
        return (
            f"<attention {self.name}: {attention.heads} heads,"
            f" {attention.kv_heads} kv, tiles {schedule.block_q} x"
            f" {schedule.block_k}, backend {backend}>"
        )

    def __deepcopy__(self, memo: object) -> Attention:
        return self  # it never changes

    def __reduce__(self) -> tuple[type[Attention], tuple[object, ...]]:
        return Attention, (self.trace, self.backend_name)  # loaded again where it lands

    def _load(self, name: str) -> Program:
        """Load a backend, once. Raises `PatternError` if it refuses the kernel."""
        if name not in self._loaded:
            backend = backends.get(name)
            refusal = backend.refuse(self.kernel)
            if refusal is not None:
                raise PatternError([refusal])
            loaded = backend.load(self.kernel)
            self._loaded[name] = add_program(self.kernel, name, loaded)
        return self._loaded[name]

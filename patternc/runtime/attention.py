"""An attention of a package, ready to be called.

In: the path of a package. Out: `PackagedAttention`, as `patternc.load` would give it on
a GPU. Not its job: kernels (`launch`), what is launched for a call (`host`).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import host as _host
from .driver import Driver, driver
from .format import PackageError
from .launch import Code, Kernel
from .manifest import ELEMENTS, Array, Facts, Manifest
from .package import Package, read_package
from .steps import most_steps

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_INTEGERS = {"i32": torch.int32, "i64": torch.int64}
_KERNELS = (
    "forward_kernel",
    "ordered_kernel",
    "combine_kernel",
    "delta_kernel",
    "query_gradient_kernel",
    "key_gradient_kernel",
    "ordered_query_gradient_kernel",
    "ordered_key_gradient_kernel",
    "hopper_kernel",
)


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
        **params: int,
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
        **params: int,
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
        **params: int,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The output [B, H, n_q, D_v], and with `return_lse` the LSE [B, H, n_q] too.

        Arguments are those of `patternc.load`'s attention, on a GPU: `q` [B, H, n_q, D],
        `k` [B, KV, n_k, D], `v` [B, KV, n_k, D], of a dtype and head size that the
        package was built for; tensors whose rows do not start on 16 bytes, or are not
        contiguous, are copied. `scale` must be positive. Differentiable in a package
        with gradients. Raises `TypeError` or `ValueError` that names the argument,
        `PackageError` for what the package has no code for.
        """
        if return_lse and not self.manifest.facts.has_lse:
            raise ValueError(
                f"{self.name}: `return_lse`: heads whose weights are no softmax have none"
            )
        given = {
            "scale": scale,
            "q_offset": q_offset,
            "lengths": lengths,
            "cu_seqlens": cu_seqlens,
            "max_seqlen": max_seqlen,
            **params,
        }
        needs = torch.is_grad_enabled() and any(_needs_gradient(x) for x in (q, k, v))
        if needs:
            self._refuse_gradient()
            output, lse = _Step.apply(q, k, v, self, given)  # type: ignore[no-untyped-call]
        else:
            output, lse = self.attend(q, k, v, **given)
        return (output, lse) if return_lse else output

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, **given: Any
    ) -> tuple[Tensor, Tensor]:
        """Output and LSE, outside of autograd; arguments as for a call."""
        host = self._ready()
        q, k, v = _readable(host, q, k, v)
        self._check_served(q, v, given)
        output, lse = host.attend(q, k, v, **given)
        return output, lse

    def gradients(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        d_out: Tensor,
        d_lse: Tensor | None,
        **given: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """dq, dk and dv; `out` and `lse` are what `attend` gave for the same call."""
        self._refuse_gradient()
        host = self._ready()
        q, k, v, d_out = _readable(host, q, k, v, d_out)
        self._check_served(q, v, given)
        found = host.gradients(q, k, v, out, lse, d_out, d_lse, **given)
        return found[0], found[1], found[2]

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

    def _check_served(self, q: Tensor, v: Tensor, given: dict[str, Any]) -> None:
        """Say in words what the package was not built for."""
        manifest, facts = self.manifest, self.manifest.facts
        if not isinstance(q, Tensor) or not isinstance(v, Tensor):
            return  # the checks say what is wrong
        dtypes = [_DTYPES[word] for word in manifest.dtypes]
        if q.dtype not in dtypes:
            built = ", ".join(map(str, dtypes))
            raise PackageError(f"{facts.name}: built for {built}, and `q` is {q.dtype}")
        for argument, tensor in (("q", q), ("v", v)):
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
    """A call that autograd watches."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attention: PackagedAttention,
        given: dict[str, Any],
    ) -> tuple[Tensor, Tensor]:
        """Output and LSE."""
        output, lse = attention.attend(q, k, v, **given)
        ctx.save_for_backward(q, k, v, output, lse)
        ctx.set_materialize_grads(False)
        ctx.told = attention, given
        return output, lse

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_out: Tensor | None, d_lse: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The gradients of `q`, `k` and `v`."""
        attention, given = ctx.told
        q, k, v, output, lse = ctx.saved_tensors
        own = torch.zeros_like(output) if d_out is None else d_out
        found = attention.gradients(q, k, v, output, lse, own, d_lse, **given)
        return *found, None, None


def host_of(package: Package, code: Code) -> ModuleType:
    """A copy of the module `host` that stands for one program, as a generated one does."""
    name, file = f"{__package__}.host", _host.__file__
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    facts = package.manifest.facts
    for constant, value in _constants(facts).items():
        setattr(module, constant, value)
    for kernel in _KERNELS:
        setattr(module, kernel, Kernel(kernel, code))
    module.has_tma = lambda device: code.choice(device.index).has_tma
    module.is_hopper = lambda device: (
        device.type == "cuda" and code.choice(device.index).target == "sm_90"
    )
    module.visited = lambda qt, n_k, values: most_steps(facts, qt, n_k, values)
    module.stored_lists = _stored_lists(package)
    if not facts.shares:
        module.MOST_SPLITS = 1
    found: ModuleType = module
    return found


def _constants(facts: Facts) -> dict[str, object]:
    """What the host code calls the facts of a program."""
    return {
        "NAME": facts.name,
        "HEADS": facts.heads,
        "KV_HEADS": facts.kv_heads,
        "BLOCK_Q": facts.block_q,
        "BLOCK_K": facts.block_k,
        "HAS_HOPPER": facts.hopper_blocks is not None,
        "HOPPER_Q": (facts.hopper_blocks or (1, 1))[0],
        "HOPPER_K": (facts.hopper_blocks or (1, 1))[1],
        "HOPPER_STAGES": {x.columns: x.stages for x in facts.hopper_stages},
        "LARGEST_DIM": facts.largest_dim,
        "DELTA_ROWS": facts.delta_rows,
        "LAUNCHES": {
            (x.work, x.columns, x.itemsize): (x.warps, x.stages) for x in facts.launches
        },
        "PARAMS": dict(facts.params),
        "PACKS": facts.packs,
        "SHARES": facts.shares,
        "HIDES": facts.hides,
        "HIDES_REVERSED": facts.hides_reversed,
        "IS_ORDERED": facts.is_ordered,
        "RUNS_WITHOUT_KEYS": not facts.has_lse,
        "LAYOUT_SIZE": facts.layout_size,
        "WHOLE_ONLY": facts.whole_only,
        "WHOLE_ONLY_REVERSED": facts.whole_only_reversed,
        "LIST_TENSORS": facts.list_tensors,
        "TURNED_TENSORS": facts.turned_tensors,
        "LIST_NUMBERS": facts.list_numbers,
    }


def _stored_lists(package: Package) -> Callable[..., tuple[Any, Any]]:
    """What gives the tile lists of a call on a device, sent there once."""
    facts = package.manifest.facts
    sent: dict[tuple[int, torch.device], tuple[Any, Any]] = {}

    def find(
        n_q: int, n_k: int, q_offset: int, device: torch.device
    ) -> tuple[Any, Any]:
        found = sent.get((n_k, device))
        if found is not None and n_q == n_k and q_offset == 0:
            return found
        for lists in facts.lists:
            if lists.length == n_k == n_q and q_offset == 0:
                both = (lists.forward, lists.turned)
                found = tuple(_tensors(package, x, device) for x in both)  # type: ignore[assignment]
                assert found is not None
                sent[n_k, device] = found
                return found
        lengths = ", ".join(str(lists.length) for lists in facts.lists)
        raise PackageError(
            f"{facts.name}: the package lists the tiles of {lengths} queries and as many"
            f" keys; got {n_q} from {q_offset} on, and {n_k}"
        )

    return find


def _tensors(
    package: Package, arrays: Sequence[Array], device: torch.device
) -> tuple[Tensor, ...]:
    found = []
    for array in arrays:
        dtype = _INTEGERS[array.element]
        flat = torch.zeros(array.size // ELEMENTS[array.element], dtype=dtype)
        if array.size:
            flat = torch.frombuffer(bytearray(package.blob(array.blob)), dtype=dtype)
        found.append(flat.view(array.shape).to(device))
    return tuple(found)


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

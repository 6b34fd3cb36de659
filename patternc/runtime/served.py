"""What a package was built for, and tensors as its kernels read them.

In: a manifest, the tensors of a call. Out: the tensors, or copies; an error in words for
what was not built. Not its job: checks of every call (`checks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .format import PackageError
from .manifest import Manifest

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def check_served(
    manifest: Manifest, own: Mapping[str, Tensor], given: Mapping[str, Any]
) -> None:
    """Refuse a dtype, head size or scale that was not built; `q` is among `own`.

    Raises `PackageError`.
    """
    facts, q = manifest.facts, own["q"]
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


def as_built(manifest: Manifest, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments with integer inputs of the width that kernels read.

    Raises `PackageError` for int64.
    """
    inputs, name = manifest.facts.inputs, manifest.facts.name
    own = dict(given) if inputs else given
    for item in inputs:
        tensor = given.get(item.name)
        if item.element != "int" or not isinstance(tensor, Tensor):
            continue
        if tensor.dtype in (torch.int8, torch.int16, torch.uint8):
            own[item.name] = tensor.to(torch.int32)
        elif tensor.dtype == torch.int64:
            raise PackageError(
                f"{name}: `{item.name}`: built for integers of 32 bits, got"
                f" {tensor.dtype}; give it as `{item.name}.to(torch.int32)`"
            )
    return own


def readable(host: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
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

"""Checks of the arguments of a call.

In: what a user passed to an attention. Out: the resolved scale, query offset and
run-time parameters, or a `TypeError` or `ValueError` that names the argument, what
was expected and what came. Not its job: what a single kernel cannot do beyond its
head sizes, dtypes and device (a backend's `refuse`).

This file reads nothing of patternc: generated kernel modules carry its text.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Collection, Mapping

import torch

LIMIT = 2**30
"""The greatest length, offset and run-time parameter, so that no sum can overflow."""


def check_call(
    name: str,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    heads: int,
    kv_heads: int,
    scale: object = None,
    q_offset: object = None,
    head_dims: Collection[int] | None = None,
    dtypes: Collection[torch.dtype] | None = None,
    device_type: str | None = None,
) -> tuple[float, int]:
    """The scale and the query offset of a checked call.

    `q` is [B, heads, n_q, D]; `k` and `v` are [B, kv_heads, n_k, D], any strides, one
    floating dtype and one device. B, n_q and n_k may be 0, D may not. `head_dims`,
    `dtypes` and `device_type` narrow what is accepted. The scale is 1/sqrt(D) and the
    offset n_k - n_q where None is given. Raises `TypeError` for a wrong type or
    dtype, else `ValueError`.
    """
    wanted = {"q": (q, heads, "n_q"), "k": (k, kv_heads, "n_k")}
    for argument, (tensor, count, length) in {
        **wanted,
        "v": (v, kv_heads, "n_k"),
    }.items():
        _check_layout(name, argument, tensor, count, length)
    _check_agreement(name, q, k, v)
    _check_dtypes(name, q, k, v, dtypes)
    if device_type is not None and q.device.type != device_type:
        came = f"got one on {q.device}"
        raise ValueError(f"{name}: `q`: expected a {device_type} tensor, {came}")
    dim = q.shape[3]
    if head_dims is not None and dim not in head_dims:
        sizes = " or ".join(str(size) for size in sorted(head_dims))
        raise ValueError(f"{name}: `q`: expected a head size D of {sizes}, got {dim}")
    offset = k.shape[2] - q.shape[2]
    if q_offset is not None:
        offset = _integer(name, "q_offset", q_offset)
    return _scale(name, scale, dim), offset


def check_params(
    name: str, declared: Mapping[str, int | None], given: Mapping[str, object]
) -> dict[str, int]:
    """A value for every declared run-time parameter: the given one or its default.

    Raises `TypeError` for an unknown name, a missing value or one that is not an
    integer, `ValueError` for one beyond +-2**30.
    """
    for argument in given:
        if argument not in declared:
            names = ", ".join(f"`{known}`" for known in declared)
            known = f"its run-time parameters are {names}" if names else "it has none"
            raise TypeError(
                f"{name}: `{argument}` is not a run-time parameter; {known}"
            )
    values = {}
    for argument, default in declared.items():
        value = given.get(argument, default)
        if value is None:
            raise TypeError(f"{name}: `{argument}`: expected an integer, got nothing")
        values[argument] = _integer(name, argument, value)
    return values


def _check_layout(
    name: str, argument: str, tensor: torch.Tensor, heads: int, length: str
) -> None:
    """One tensor on its own: a dense [B, heads, length, D]."""
    expected = f"{name}: `{argument}`: expected [B, {heads}, {length}, D]"
    if not isinstance(tensor, torch.Tensor):
        kind = type(tensor).__name__
        raise TypeError(f"{expected}, a torch.Tensor, got {kind}")
    if tensor.layout is not torch.strided or tensor.is_nested:
        raise TypeError(f"{expected}, a strided tensor, got {tensor.layout}")
    came = f"got {list(tensor.shape)}"
    if tensor.dim() != 4:
        raise ValueError(f"{expected}, 4 dimensions, {came}")
    if tensor.shape[1] != heads:
        raise ValueError(f"{expected}, {came}: {tensor.shape[1]} heads")
    if tensor.shape[3] == 0:
        raise ValueError(f"{expected} with D of at least 1, {came}")
    if tensor.shape[2] > LIMIT:
        raise ValueError(f"{expected} with {length} of at most 2**30, {came}")


def _check_agreement(
    name: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> None:
    """Batch, D and device are those of `q`, the keys those of `k`."""
    for argument, tensor in (("k", k), ("v", v)):
        came = f"got {list(tensor.shape)}"
        for axis, letter in ((0, "B"), (3, "D")):
            if tensor.shape[axis] != q.shape[axis]:
                expected = f"{letter} = {q.shape[axis]} as in `q`"
                raise ValueError(f"{name}: `{argument}`: expected {expected}, {came}")
        if tensor.device != q.device:
            expected = f"a tensor on {q.device} as `q`"
            came = f"got one on {tensor.device}"
            raise ValueError(f"{name}: `{argument}`: expected {expected}, {came}")
    if v.shape[2] != k.shape[2]:
        expected = f"n_k = {k.shape[2]} as in `k`"
        raise ValueError(f"{name}: `v`: expected {expected}, got {list(v.shape)}")


def _check_dtypes(
    name: str,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dtypes: Collection[torch.dtype] | None,
) -> None:
    if dtypes is not None and q.dtype not in dtypes:
        allowed = " or ".join(sorted(str(dtype) for dtype in dtypes))
        raise TypeError(f"{name}: `q`: expected {allowed}, got {q.dtype}")
    if not q.dtype.is_floating_point:
        raise TypeError(f"{name}: `q`: expected a floating dtype, got {q.dtype}")
    for argument, tensor in (("k", k), ("v", v)):
        if tensor.dtype != q.dtype:
            expected = f"{q.dtype} as `q`"
            raise TypeError(
                f"{name}: `{argument}`: expected {expected}, got {tensor.dtype}"
            )


def _integer(name: str, argument: str, value: object) -> int:
    """Any integer type within +-2**30; a bool or a float is a mistake, not a number."""
    expected = f"{name}: `{argument}`: expected an integer"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{expected}, got {type(value).__name__} {value!r}")
    try:
        number = operator.index(value)
    except TypeError:  # a float or a bool tensor has `__index__` too
        came = f"got {type(value).__name__} {value!r}"
        raise TypeError(f"{expected}, {came}") from None
    if abs(number) > LIMIT:
        raise ValueError(f"{expected} within +-2**30, got {number}")
    return number


def _scale(name: str, scale: object, dim: int) -> float:
    """The factor of the logits; a tensor is refused, since no gradient would reach it."""
    if scale is None:
        return 1.0 / math.sqrt(dim)
    if isinstance(scale, bool) or not isinstance(scale, numbers.Real):
        came = f"got {type(scale).__name__} {scale!r}"
        raise TypeError(f"{name}: `scale`: expected a number, {came}")
    if not math.isfinite(scale):
        raise ValueError(f"{name}: `scale`: expected a finite number, got {scale}")
    return float(scale)

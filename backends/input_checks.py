"""Checks of the inputs of a call.

In: what a user passed for the inputs that an attention declares. Out: each with a batch
axis, or a `TypeError` or `ValueError` that names the input, what was expected and what
came. Not its job: `q`, `k`, `v`, run-time parameters (`backends.checks`).

This file reads nothing of patternc: generated kernel modules carry its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

AxisOf = tuple[str, int, int, int]
"""An axis of an input: `b`, `h`, `g`, `q`, `k`, `size`, or `group` for any length, then
shift, divisor, size."""

Declared = Mapping[str, tuple[str, tuple[AxisOf, ...], bool]]
"""For each input what it holds (int, bool or float), its axes, whether it is sorted."""


def check_inputs(
    name: str,
    declared: Declared,
    given: Mapping[str, object],
    *,
    batch: int,
    heads: int,
    kv_heads: int,
    n_q: int,
    n_k: int,
    q_offset: int,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, torch.Tensor]:
    """The declared inputs among `given`, each with a leading batch axis of 1 or B.

    Floating ones come back in float64 if `dtype`, that of `q`, is float64, else in
    float32, by an operation that gradients pass; the others keep their dtype. Raises
    `TypeError` for a missing input, a wrong type or dtype, `ValueError` for a wrong
    shape or device. Nothing is said of the values: see `check_values`.
    """
    counts = {"b": batch, "h": heads, "g": kv_heads, "q": q_offset + n_q, "k": n_k}
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    found = {}
    for argument, (element, axes, _) in declared.items():
        tensor = given.get(argument)
        if tensor is None:
            expected = f"`{argument}`: expected a tensor of {element}"
            raise TypeError(f"{name}: {expected}, got nothing")
        if not isinstance(tensor, torch.Tensor):
            came = f"got {type(tensor).__name__}"
            raise TypeError(f"{name}: `{argument}`: expected a torch.Tensor, {came}")
        _check_element(name, argument, tensor, element)
        if tensor.device != device:
            came = f"got one on {tensor.device}"
            expected = f"a tensor on {device} as `q`"
            raise ValueError(f"{name}: `{argument}`: expected {expected}, {came}")
        shaped = _with_batch(name, argument, tensor, axes, counts)
        found[argument] = shaped.to(wide) if element == "float" else shaped
    return found


def batch_of(declared: Declared, given: Mapping[str, object]) -> int | None:
    """The batch elements of the given inputs, None if no one has a batch axis."""
    found = None
    for argument, (_, axes, _) in declared.items():
        tensor, kinds = given.get(argument), [axis[0] for axis in axes]
        if not isinstance(tensor, torch.Tensor):
            continue
        if "b" in kinds and tensor.dim() == len(axes):
            found = max(found or 1, tensor.shape[kinds.index("b")])
        elif "b" not in kinds and tensor.dim() == len(axes) + 1:
            found = max(found or 1, tensor.shape[0])
    return found


def check_values(
    name: str, declared: Declared, inputs: Mapping[str, torch.Tensor]
) -> None:
    """Look at the values of checked inputs; this waits for the device.

    Raises `ValueError` for NaN or an infinity in a floating input, an integer that
    does not fit 32 bits, and values that fall along the last axis of a sorted input.
    """
    for argument, (element, _, is_sorted) in declared.items():
        values = inputs[argument].detach()
        if element == "float":
            wrong, expected = ~values.isfinite(), "finite numbers"
        else:
            values = values.to(torch.int64)
            wrong = (values < -(2**31)) | (values >= 2**31)
            expected = "numbers of 32 bits"
        if not bool(wrong.any()) and is_sorted:
            wrong = torch.zeros_like(wrong)
            wrong[..., 1:] = values[..., 1:] < values[..., :-1]
            expected = "values that never fall along the last axis, as it is sorted"
        if bool(wrong.any()):
            place = wrong.nonzero()[0].tolist()
            came = f"got {values[tuple(place)].item()} at batch element {place[0]}"
            where = f"{came}, {place[1:]}"
            raise ValueError(f"{name}: `{argument}`: expected {expected}, {where}")


def _check_element(
    name: str, argument: str, tensor: torch.Tensor, element: str
) -> None:
    """The dtype is of the kind that was declared."""
    is_bool = tensor.dtype == torch.bool
    is_float = tensor.dtype.is_floating_point
    fits = {
        "bool": is_bool,
        "float": is_float,
        "int": not (is_bool or is_float or tensor.dtype.is_complex),
    }[element]
    if not fits:
        expected = {"bool": "torch.bool", "float": "a floating dtype"}
        wanted = expected.get(element, "an integer dtype")
        raise TypeError(f"{name}: `{argument}`: expected {wanted}, got {tensor.dtype}")


def _with_batch(
    name: str,
    argument: str,
    tensor: torch.Tensor,
    axes: Sequence[AxisOf],
    counts: Mapping[str, int],
) -> torch.Tensor:
    """The tensor with its batch axis first. Raises `ValueError` for a wrong shape."""
    shape = [axis_size(axis, counts) for axis in axes]
    kinds = [axis[0] for axis in axes]
    if "group" in kinds and tensor.dim() == len(axes):
        own = zip(kinds, shape, tensor.shape, strict=True)
        shape = [came if kind == "group" else size for kind, size, came in own]
    batch = counts["b"]
    if "b" in kinds:
        if list(tensor.shape) == shape:
            return tensor.movedim(kinds.index("b"), 0)
        expected = f"{shape}"
    else:
        if list(tensor.shape) == shape:
            return tensor.unsqueeze(0)
        if list(tensor.shape) in ([1, *shape], [batch, *shape]):
            return tensor
        expected = f"{shape}, or with a batch axis {[batch, *shape]}"
    over = ", ".join(kinds) or "one value"
    came = f"got {list(tensor.shape)}"
    raise ValueError(f"{name}: `{argument}`: expected {expected} ({over}), {came}")


def axis_size(axis: AxisOf, counts: Mapping[str, int]) -> int:
    """How long an axis is: for `(position - shift) // divisor`, up to the last one."""
    kind, shift, divisor, size = axis
    if kind in ("size", "group"):
        return size
    if kind in ("q", "k"):
        return max(0, (counts[kind] - 1 - shift) // divisor + 1)
    return counts[kind]

"""The checks of a call.

Made by `python -m patternc.backends.triton.host` from the templates of generated
modules. Do not edit.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Collection, Mapping, Sequence

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
    largest_dim: int | None = None,
    dtypes: Collection[torch.dtype] | None = None,
    device_type: str | None = None,
) -> tuple[float, int]:
    """The scale and the query offset of a checked call.

    `q` is [B, heads, n_q, D], `k` is [B, kv_heads, n_k, D] and `v` is [B, kv_heads, n_k,
    D_v], any strides, one floating dtype and one device. B, n_q and n_k may be 0, D and
    D_v may not. `largest_dim` of D and D_v, `dtypes` and `device_type` narrow what is accepted. The scale is 1/sqrt(D) and the
    offset n_k - n_q where None is given. Raises `TypeError` for a wrong type or
    dtype, else `ValueError`.
    """
    # A right call in one look; only for a wrong one each check says what is wrong.
    narrower = (largest_dim, dtypes, device_type)
    if not _is_right(q, k, v, heads, kv_heads, *narrower):
        _check_tensors(name, q, k, v, heads, kv_heads, *narrower)
    offset = k.shape[2] - q.shape[2]
    if q_offset is not None:
        offset = _integer(name, "q_offset", q_offset)
    return _scale(name, scale, q.shape[3]), offset


def check_sequences(
    name: str,
    q: torch.Tensor,
    n_k: int,
    q_offset: int,
    lengths: object,
    cu_seqlens: object,
    max_seqlen: object,
) -> tuple[str, torch.Tensor, int] | None:
    """Whether sequences are padded or packed, their numbers, and the longest's bound.

    None if a call names none. The numbers are int32, `lengths` [B] or `cu_seqlens`
    [count + 1]; their values are not looked at, as that would wait for the device.
    Raises `TypeError` or `ValueError`.
    """
    if lengths is None and cu_seqlens is None and max_seqlen is None:
        return None
    n_q = q.shape[2]
    if lengths is not None and cu_seqlens is not None:
        came = "got both"
        raise TypeError(f"{name}: `lengths`: expected it or `cu_seqlens`, {came}")
    if lengths is None and cu_seqlens is None:
        raise TypeError(f"{name}: `cu_seqlens`: expected a tensor, got nothing")
    if n_q != n_k or q_offset != 0:
        came = f"got {n_q} queries from {q_offset} on and {n_k} keys"
        expected = "sequences whose queries are their keys"
        raise ValueError(f"{name}: `q`: expected {expected}, {came}")
    if lengths is not None:
        if max_seqlen is not None:
            raise TypeError(f"{name}: `max_seqlen` goes with `cu_seqlens`")
        numbers = _numbers(name, "lengths", lengths, q)
        if len(numbers) != q.shape[0]:
            came = f"[{q.shape[0]}], got {list(numbers.shape)}"
            raise ValueError(f"{name}: `lengths`: expected {came}")
        return "padded", numbers, n_q
    numbers = _numbers(name, "cu_seqlens", cu_seqlens, q)
    if len(numbers) < 2:
        raise ValueError(f"{name}: `cu_seqlens`: expected at least 2 numbers")
    if q.shape[0] != 1:
        came = f"got {list(q.shape)}"
        raise ValueError(f"{name}: `q`: expected [1, H, total, D] if packed, {came}")
    if max_seqlen is None:
        raise TypeError(f"{name}: `max_seqlen`: expected an integer, got nothing")
    longest = _integer(name, "max_seqlen", max_seqlen)
    if longest < 0:
        raise ValueError(f"{name}: `max_seqlen`: expected 0 or more, got {longest}")
    return "packed", numbers, min(longest, n_q)


def _numbers(name: str, argument: str, given: object, q: torch.Tensor) -> torch.Tensor:
    """A row of integers on the device of `q`, as int32."""
    expected = f"{name}: `{argument}`: expected one row of integers"
    if not isinstance(given, torch.Tensor):
        raise TypeError(f"{expected}, got {type(given).__name__}")
    if given.dtype not in (torch.int32, torch.int64) or given.dim() != 1:
        raise TypeError(f"{expected}, got {given.dtype} {list(given.shape)}")
    if given.device != q.device:
        raise ValueError(f"{expected} on {q.device} as `q`, got one on {given.device}")
    return given.to(torch.int32).contiguous()


def check_params(
    name: str,
    declared: Mapping[str, int | None],
    given: Mapping[str, object],
    inputs: Collection[str] = (),
) -> dict[str, int]:
    """A value for every declared run-time parameter: the given one or its default.

    `inputs` are names in `given` that are not its business. Raises `TypeError` for an
    unknown name, a missing value or one that is not an integer, `ValueError` for one
    beyond +-2**30.
    """
    for argument in given:
        if argument not in declared and argument not in inputs:
            raise TypeError(_unknown(name, argument, declared, inputs))
    values = {}
    for argument, default in declared.items():
        value = given.get(argument, default)
        if value is None:
            raise TypeError(f"{name}: `{argument}`: expected an integer, got nothing")
        values[argument] = _integer(name, argument, value)
    return values


def check_length(name: str, size: int, n_q: int, n_k: int, q_offset: int) -> None:
    """The queries end where the keys do, at the end of a layout of `size` tokens.

    Raises `ValueError` if not.
    """
    if n_k != size:
        expected = f"{name}: `k`: expected the {size} tokens of the layout"
        raise ValueError(f"{expected}, got {n_k}")
    if q_offset + n_q != size:
        expected = (
            f"{name}: `q`: expected queries that end at token {size} of the layout"
        )
        raise ValueError(f"{expected}, got {n_q} from {q_offset} on")


def check_own_values(name: str, n_q: int, n_k: int, q_offset: int) -> None:
    """Every query has a row in `v` of its own, which an output with `v` reads.

    Raises `ValueError` if not.
    """
    if n_q and not 0 <= q_offset <= n_k - n_q:
        expected = "every query among the keys, as an output reads its value row"
        came = f"got {n_q} queries from {q_offset} on and {n_k} keys"
        raise ValueError(f"{name}: `q`: expected {expected}, {came}")


def _unknown(
    name: str,
    argument: str,
    params: Collection[str],
    inputs: Collection[str],
) -> str:
    """What to say of an argument that an attention does not have."""
    names = ", ".join(f"`{known}`" for known in params)
    known = f"its run-time parameters are {names}" if names else "it has none"
    if not inputs:
        return f"{name}: `{argument}` is not a run-time parameter; {known}"
    names = ", ".join(f"`{item}`" for item in inputs)
    known = f"its inputs are {names}; {known.replace('none', 'no such parameters')}"
    return f"{name}: `{argument}` is neither a run-time parameter nor an input; {known}"


def _is_right(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    kv_heads: int,
    largest_dim: int | None,
    dtypes: Collection[torch.dtype] | None,
    device_type: str | None,
) -> bool:
    """Whether `_check_tensors` would find nothing, for a tenth of its time."""
    for tensor in (q, k, v):
        if not isinstance(tensor, torch.Tensor) or tensor.is_nested:
            return False
        if tensor.layout is not torch.strided or tensor.dim() != 4:
            return False
    batch, q_heads, n_q, dim = q.shape
    k_batch, k_heads, n_k, k_dim = k.shape
    v_batch, v_heads, v_keys, value_dim = v.shape
    dtype, device = q.dtype, q.device
    return (
        q_heads == heads
        and k_heads == kv_heads
        and v_heads == kv_heads
        and k_batch == batch
        and v_batch == batch
        and v_keys == n_k
        and n_q <= LIMIT
        and n_k <= LIMIT
        and k_dim == dim
        and dim != 0
        and value_dim != 0
        and (largest_dim is None or (dim <= largest_dim and value_dim <= largest_dim))
        and dtype.is_floating_point
        and (dtypes is None or dtype in dtypes)
        and k.dtype == dtype
        and v.dtype == dtype
        and k.device == device
        and v.device == device
        and (device_type is None or device.type == device_type)
    )


def _check_tensors(
    name: str,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    kv_heads: int,
    largest_dim: int | None,
    dtypes: Collection[torch.dtype] | None,
    device_type: str | None,
) -> None:
    """Say what is wrong first, in this order."""
    wanted = {"q": (q, heads, "n_q"), "k": (k, kv_heads, "n_k")}
    wanted["v"] = (v, kv_heads, "n_k")
    for argument, (tensor, count, length) in wanted.items():
        _check_layout(name, argument, tensor, count, length)
    _check_agreement(name, q, k, v)
    _check_dtypes(name, q, k, v, dtypes)
    if device_type is not None and q.device.type != device_type:
        came = f"got one on {q.device}"
        raise ValueError(f"{name}: `q`: expected a {device_type} tensor, {came}")
    for argument, size, letter in (("q", q.shape[3], "D"), ("v", v.shape[3], "D_v")):
        if largest_dim is not None and size > largest_dim:
            expected = f"a head size {letter} from 1 to {largest_dim}"
            raise ValueError(f"{name}: `{argument}`: expected {expected}, got {size}")


def _check_layout(
    name: str, argument: str, tensor: torch.Tensor, heads: int, length: str
) -> None:
    """One tensor on its own: a dense [B, heads, length, D]."""
    # A right one first: torch.compile can't put a symbolic number into a message.
    if (
        isinstance(tensor, torch.Tensor)
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and tensor.dim() == 4
        and tensor.shape[1] == heads
        and tensor.shape[2] <= LIMIT
        and tensor.shape[3] != 0
    ):
        return
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
    """Batch, D and device are those of `q`, the keys those of `k`; D_v is free."""
    for argument, tensor in (("k", k), ("v", v)):
        came = f"got {list(tensor.shape)}"
        for axis, letter in ((0, "B"), (3, "D"))[: 1 if argument == "v" else 2]:
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
    number: int
    if isinstance(value, int | torch.SymInt) and not isinstance(value, bool):
        # A symbol of torch.compile or torch.export stays one.
        number = value  # type: ignore[assignment]
    elif isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{expected}, got {type(value).__name__} {value!r}")
    else:
        try:
            number = operator.index(value)
        except TypeError:  # a float or a bool tensor has `__index__` too
            came = f"got {type(value).__name__} {value!r}"
            raise TypeError(f"{expected}, {came}") from None
    if abs(number) > LIMIT:
        raise ValueError(f"{expected} within +-2**30, got {number}")
    return number


def _scale(name: str, scale: object, dim: int) -> float:
    """The factor of the logits; no tensor, since no gradient would reach it."""
    if scale is None:
        return 1.0 / math.sqrt(dim)
    if isinstance(scale, bool) or not isinstance(scale, numbers.Real):
        came = f"got {type(scale).__name__} {scale!r}"
        raise TypeError(f"{name}: `scale`: expected a number, {came}")
    if not math.isfinite(scale):
        raise ValueError(f"{name}: `scale`: expected a finite number, got {scale}")
    return float(scale)


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

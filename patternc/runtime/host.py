"""What is launched for a call of a package.

Made by `python -m patternc.backends.host` from the templates of generated
modules. Do not edit.
"""

# mypy: ignore-errors
# ruff: noqa

import contextlib
import functools
import math

import torch

from .checks import LIMIT, check_call, check_length, check_params, check_sequences
from .launch import OutOfResources, TensorDescriptor, cdiv


# What a program is: set in a copy of this module for each package that is loaded.
NAME = ""
HEADS, KV_HEADS = 1, 1
BLOCK_Q, BLOCK_K = 1, 1
LARGEST_DIM = 256
DELTA_ROWS = 64
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
LAUNCHES = {}
PARAMS = {}
PACKS = SHARES = HIDES = HIDES_REVERSED = IS_ORDERED = RUNS_WITHOUT_KEYS = False
LAYOUT_SIZE = None
WHOLE_ONLY = WHOLE_ONLY_REVERSED = ""
LIST_TENSORS = TURNED_TENSORS = LIST_NUMBERS = 0
INTERPRETED = False
forward_kernel = ordered_kernel = combine_kernel = delta_kernel = None
query_gradient_kernel = key_gradient_kernel = None
ordered_query_gradient_kernel = ordered_key_gradient_kernel = None
hopper_kernel = None
HAS_HOPPER = False
HOPPER_Q = HOPPER_K = 1
HOPPER_STAGES = {}
stored_lists = visited = None

LOG2_E = 1.4426950408889634


def forward(
    q,
    k,
    v,
    *,
    scale=None,
    q_offset=None,
    return_lse=False,
    lengths=None,
    cu_seqlens=None,
    max_seqlen=None,
    **params,
):
    """The attention's output [B, HEADS, n_q, D_v] in the dtype of `q`.

    `q` is [B, HEADS, n_q, D], `k` is [B, KV_HEADS, n_k, D] and `v` is [B, KV_HEADS,
    n_k, D_v], with D and D_v up to LARGEST_DIM and one of DTYPES; any strides. `scale`
    is 1/sqrt(D) and `q_offset`, the position of the first query, n_k - n_q unless
    given. With `return_lse` the log-sum-exp of each row's visible logits, float32
    [B, HEADS, n_q], comes too. `params` are the run-time parameters in METADATA.
    `lengths` [B] are those of padded sequences; `cu_seqlens` [count + 1] says where
    sequences start that lie end to end in one batch element, none longer than
    `max_seqlen`: each is an attention of its own. Raises `TypeError` or `ValueError`
    for what does not fit.
    """
    given = (lengths, cu_seqlens, max_seqlen)
    output, lse = run(q, k, v, scale, q_offset, params, given)
    return (output, lse) if return_lse else output


def attend(
    q,
    k,
    v,
    /,
    *,
    scale=None,
    q_offset=None,
    lengths=None,
    cu_seqlens=None,
    max_seqlen=None,
    **params,
):
    """Output and LSE."""
    given = (lengths, cu_seqlens, max_seqlen)
    return run(q, k, v, scale, q_offset, params, given)


def run(q, k, v, scale, q_offset, params, given):
    """Check a call and run it; output and LSE."""
    scale, q_offset = check_call(
        NAME,
        q,
        k,
        v,
        heads=HEADS,
        kv_heads=KV_HEADS,
        scale=scale,
        q_offset=q_offset,
        largest_dim=LARGEST_DIM,
        dtypes=DTYPES,
    )
    values = check_params(NAME, PARAMS, params)
    if LAYOUT_SIZE is not None:
        check_length(NAME, LAYOUT_SIZE, q.shape[2], k.shape[2], q_offset)
    sizes = (k.shape[2], q_offset)
    sequences = check_sequences(NAME, q, *sizes, *given)
    if sequences is not None and WHOLE_ONLY:
        came = WHOLE_ONLY
        raise ValueError(f"{NAME}: `lengths`, `cu_seqlens`: refused, as {came}")
    check_runs(q, k, v)
    batch, _, n_q, _ = q.shape
    n_k = k.shape[2]
    if q_offset + n_q > LIMIT:
        came = f"got {q_offset} and {n_q} queries"
        raise ValueError(f"{NAME}: `q_offset`: expected no query past 2**30, {came}")
    if batch * n_q == 0 or n_k == 0 and not RUNS_WITHOUT_KEYS:
        output = q.new_zeros((*q.shape[:3], v.shape[3]))
        lse = rows_like(q).fill_(-math.inf)
    else:
        output = q.new_empty((*q.shape[:3], v.shape[3]))
        lse = rows_like(q)
        if sequences is not None and sequences[0] == "packed":
            # Rows of no sequence, and beyond `max_seqlen`.
            output.zero_()
            lse.fill_(-math.inf)
        launch(q, k, v, output, lse, scale, q_offset, values, sequences)
    return output, lse


def launch(q, k, v, output, lse, scale, q_offset, values, sequences=None):
    """Start one program for each query tile, head and batch, or a few for each."""
    batch, _, n_q, dim = q.shape
    n_k, value_dim = v.shape[2:]
    longest, form, numbers = n_q, "none", None
    if sequences is not None:
        form, numbers, longest = sequences
        batch = len(numbers) - 1 if form == "packed" else batch
    first_q_tile = q_offset // BLOCK_Q
    n_q_tiles = (q_offset + longest - 1) // BLOCK_Q - first_q_tile + 1
    programs = n_q_tiles * HEADS * batch
    if programs == 0:
        return
    if programs >= 2**31:
        raise ValueError(f"{NAME}: `q`: expected at most 2**31 tiles, got {programs}")
    access = access_of(q, k, v)
    if n_k == 0:
        access = "any"
    ordered = IS_ORDERED and is_ordered(n_q, n_k, q_offset)
    if ordered and access == "descriptor":
        access = "aligned"  # rows are gathered by token
    lists, turned = (), ()
    if LIST_TENSORS or TURNED_TENSORS:
        lists, turned = stored_lists(n_q, n_k, q_offset, q.device)
    is_packed = PACKS and SHARES and form == "none"
    is_packed = is_packed and n_q * (HEADS // KV_HEADS) <= BLOCK_Q
    is_packed = is_packed and fits_packed(q, v)
    if is_packed:
        programs = n_q_tiles * KV_HEADS * batch
    splits = 1
    if form == "none":
        qt = first_q_tile + n_q_tiles - 1
        splits = splits_of(q, programs, qt, n_k, values)
        programs *= splits
    shares = None, None
    if is_packed or splits > 1:
        shares = new_shares(output, splits)
    arguments = (
        q if is_packed else source_of(q, BLOCK_Q, access),
        source_of(k, BLOCK_K, access),
        source_of(v, BLOCK_K, access),
        output,
        lse,
        numbers,
        *shares,
        *lists[:LIST_TENSORS],
        *q.stride(),
        *k.stride(),
        *v.stride(),
        n_q,
        n_k,
        q_offset,
        first_q_tile,
        n_q_tiles,
        splits,
        scale * LOG2_E,
        *values.values(),
        *[0] * LIST_NUMBERS,
    )
    block_d, block_dv = padded(dim), padded(value_dim)
    columns = max(block_d, block_dv)
    warps, stages = launch_of("forward", columns, q, access)
    options = {
        "HEADS": HEADS,
        "GROUP_SIZE": HEADS // KV_HEADS,
        "HEAD_DIM": dim,
        "VALUE_DIM": value_dim,
        "BLOCK_D": block_d,
        "BLOCK_DV": block_dv,
        "BLOCK_Q": BLOCK_Q,
        "BLOCK_K": BLOCK_K,
        "ACCESS": access,
        "SEQUENCES": form,
        "POSITIVE_SCALE": scale > 0,
        "PRECISION": precision_of(q),
        "EXACT": False,
        "IS_SPLIT": shares[0] is not None,
        **({"PACKED": is_packed} if PACKS else {}),
        "num_warps": warps,
        "enable_fp_fusion": True,
    }
    with current(q.device):
        kernel = ordered_kernel if ordered else forward_kernel
        kind = (q.device, q.dtype, dim, value_dim, access)
        first = (kernel, programs, arguments, options, stages, kind)
        again = exact_of(first)
        is_alone = HAS_HOPPER and shares[0] is None
        how = (access, scale, q_offset, values, sequences)
        if is_alone and runs_on_hopper(q, v, *how):
            more = tuple(values.values())
            given = (scale, q_offset, more, sequences)
            first = hopper_launch(q, k, v, output, lse, *given)
        if HIDES or sequences is not None:
            start_both(first, again)
        else:
            start(*first)
        if shares[0] is not None:
            combine_kernel[(batch * HEADS * n_q,)](
                *shares,
                output,
                lse,
                n_q,
                n_k,
                q_offset,
                splits,
                *values.values(),
                HEADS=HEADS,
                GROUP_SIZE=HEADS // KV_HEADS,
                VALUE_DIM=value_dim,
                BLOCK_DV=padded(value_dim),
                BLOCK_Q=1,
                SHARES=MOST_SPLITS,
            )


def start(kernel, programs, arguments, options, stages, kind):
    """Launch with as many tiles in flight, up to `stages`, as shared memory holds."""
    kind = (kernel.__name__, *kind)
    while True:
        fitting = FITTING.setdefault(kind, stages)
        try:
            kernel[(programs,)](*arguments, **options, num_stages=fitting)
        except OutOfResources as error:  # raised before anything is launched
            if fitting == 1:
                advice = "compile it with smaller tiles (block_q, block_k)"
                raise ValueError(f"{NAME}: {error}; {advice}") from error
            FITTING[kind] = fitting - 1
        else:
            return


def exact_of(launch):
    """The same launch for the tiles that values which are not finite have spoiled."""
    kernel, programs, arguments, options, _, kind = launch
    return kernel, programs, arguments, options | {"EXACT": True}, 1, (*kind, "exact")


def start_both(first, again):
    """A launch, and one for the tiles that it marked, mostly none."""
    start(*first)
    start(*again)


def launch_of(kernel, columns, q, access):
    """The warps and stages of a kernel. Raises `ValueError` where no stage fits."""
    check_fits(kernel, columns, q, access)
    found = LAUNCHES.get((kernel, columns, q.element_size()))
    if found is None:
        raise ValueError(
            f"{NAME}: tiles of {BLOCK_Q} x {BLOCK_K} with {columns} columns of {q.dtype}"
            " need more shared memory than a device has; compile it with smaller tiles"
        )
    return fitted_to(compiler_of(q.device), kernel, columns, *found)


def check_fits(kernel, columns, q, access):
    """Refuse float32 tiles that shared memory can't hold, before anything is compiled."""
    if precision_of(q) != "tf32x3" or access == "descriptor":
        return
    compiler, row = compiler_of(q.device), columns * q.element_size()
    needed = least_shared(compiler, kernel, BLOCK_Q, BLOCK_K, row)
    limit = SHARED_BYTES[compiler]
    if needed > limit:
        sides = (128, 64, 32, 16)
        least = (least_shared(compiler, kernel, x, x, row) for x in sides)
        most = next(x for x, taken in zip(sides, least, strict=True) if taken <= limit)
        other = "; or rows that are contiguous and start on 16 bytes"
        raise ValueError(
            f"{NAME}: tiles of {BLOCK_Q} x {BLOCK_K} with {columns} columns of {q.dtype},"
            f" read by pointers, need {needed} bytes of shared memory, a device has"
            f" {limit}: compile it with block_q and block_k of at most"
            f" {most}{other if compiler == 'hopper' else ''}"
        )


def least_shared(compiler, kernel, block_q, block_k, row):
    """Bytes that float32 tiles with rows of `row` bytes take in shared memory.

    At least, as Triton 3.6 compiles products that are three of TF32, of tiles that are
    read by pointers: all tiles, once or, for wgmma, split in two, and the weights.
    """
    rows = block_q + block_k
    tiles = rows if kernel == "forward" else 2 * rows
    if compiler == "hopper" and min(block_q, block_k) >= 64:
        return (tiles + rows) * row
    return tiles * row + 4 * block_q * block_k


SHARED_BYTES = {"ampere": 166912, "hopper": 232448}
"""The most shared memory that a thread block may take, by compiler."""


def fitted_to(compiler, kernel, columns, warps, stages):
    """The warps and stages of a kernel, where those for Hopper make registers spill.

    AMD's compiler keeps the tiles that are in flight in registers: there is one.
    Before sm_90 the sums of 128 columns are too many for four warps.
    """
    if compiler == "amd":
        return warps, 1
    if compiler == "ampere" and kernel == "key" and columns > 64:
        return max(warps, 8), stages
    return warps, stages


@functools.cache
def compiler_of(device):
    """Which compiler makes the code: "hopper" from sm_90 on, "ampere" before, "amd"."""
    if device.type != "cuda":
        return "hopper"
    if torch.version.hip is not None:
        return "amd"
    return "hopper" if has_tma(device) else "ampere"


FITTING = {}
"""The stages that fit, by kernel, device, dtype, head sizes and access."""


def padded(dim):
    """The columns of a tile: a power of two that holds a row, at least 16."""
    return max(16, 1 << (dim - 1).bit_length())


def current(device):
    """A context in which `device` is the one that kernels are launched on."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(device)


def precision_of(q):
    """How float32 products are made; no other dtype reads it.

    Three TF32 products on tensor cores come within a few units in the last place;
    plain multiply-adds would spill and take a minute to compile. Only they exist in
    the interpreter and on AMD.
    """
    is_nvidia = q.is_cuda and torch.version.hip is None
    return "tf32x3" if is_nvidia and q.dtype == torch.float32 else "ieee"


def rows_like(q):
    """An uninitialised float32 [B, HEADS, n_q] beside `q`."""
    return q.new_empty(q.shape[:3], dtype=torch.float32)


def check_runs(q, k, v):
    """Refuse what this kernel cannot do, before anything is launched."""
    if torch.is_grad_enabled() and (
        q.requires_grad or k.requires_grad or v.requires_grad
    ):
        raise ValueError(
            f"{NAME}: `q`, `k`, `v`: expected no gradient to be asked for, as autograd"
            " does not see inside; call it under torch.no_grad(), or make an autograd"
            " function of `attend` and `gradients`, as patternc.load does"
        )
    if q.device.type == "cuda":
        return
    if not INTERPRETED:
        raise ValueError(f"{NAME}: `q`: expected a cuda tensor, got one on {q.device}")
    if q.dtype == torch.bfloat16:
        raise TypeError(
            f"{NAME}: `q`: expected float16 or float32 in Triton's interpreter, which"
            " computes bfloat16 wrongly; got torch.bfloat16"
        )


def access_of(*tensors):
    """How tiles are read: "descriptor" (TMA), "aligned" (wide loads) or "any" strides.

    The first two need rows that are contiguous and start on 16 bytes; "aligned" is
    for devices without TMA. Nothing is ever copied.
    """
    for tensor in tensors:
        unit = 16 // tensor.element_size()
        *outer, last = tensor.stride()
        if last != 1 or tensor.data_ptr() % 16:
            return "any"
        for size, stride in zip(tensor.shape[:3], outer, strict=True):
            if size > 1 and (stride <= 0 or stride % unit):
                return "any"
    if tensors[0].is_cuda and not has_tma(tensors[0].device):
        return "aligned"
    return "descriptor"


@functools.cache
def has_tma(device):
    """Whether a GPU reads tiles by descriptors: NVIDIA's from sm_90 on."""
    is_nvidia = torch.version.hip is None
    return is_nvidia and torch.cuda.get_device_capability(device)[0] >= 9


def source_of(tensor, rows, access):
    """The kernel's argument for a tensor: a descriptor of its tiles, or a pointer."""
    if access != "descriptor":
        return tensor
    dim, shape = padded(tensor.shape[3]), list(tensor.shape)
    *outer, _ = tensor.stride()
    # The stride of an axis of length 1 is never used, but must be a multiple of 16.
    strides = [
        stride if size > 1 else shape[2] * dim
        for size, stride in zip(shape[:3], outer, strict=True)
    ]
    # Without the checks of its constructor, which repeat those of `access_of`.
    found = TensorDescriptor.__new__(TensorDescriptor)
    found.base, found.shape, found.strides = tensor, shape, [*strides, 1]
    found.block_shape = [1, 1, rows, dim]
    return found


# head size: the fewest keys before the last query for which it is worth while
HOPPER_KEYS = {64: 8192, 128: 0}
HOPPER_SWIZZLE = 128  # bytes
HOPPER_TOGETHER = 4  # heads whose tiles start side by side, at most


def runs_on_hopper(q, v, access, scale, q_offset, values, sequences=None):
    """Whether a call takes `hopper_kernel`; `forward_kernel` takes all others.

    It needs TMA, 16 bits, head sizes that it is faster for, a positive scale, enough
    query tiles to fill the device, and long rows with few columns.
    """
    return (
        access == "descriptor"
        and q.element_size() == 2
        and q.shape[3] in HOPPER_STAGES
        and v.shape[3] in HOPPER_STAGES
        and scale > 0
        and is_hopper(q.device)
        and fills_device(q, sequences)
        and has_long_rows(q, v, q_offset, values, sequences)
    )


def fills_device(q, sequences):
    """Whether each multiprocessor has a query tile; of sequences all are counted."""
    batch, heads, n_q, _ = q.shape
    if sequences is not None and sequences[2] < HOPPER_Q:
        return False
    return batch * heads * (n_q // HOPPER_Q) >= multiprocessors(q.device)


def has_long_rows(q, v, q_offset, values, sequences):
    """Whether the last query tile, of the longest sequence, visits enough keys."""
    least = min(HOPPER_KEYS[q.shape[3]], HOPPER_KEYS[v.shape[3]])
    if least == 0:
        return True
    n_q, n_k = (q.shape[2], v.shape[2]) if sequences is None else sequences[2:] * 2
    return most_steps((q_offset + n_q - 1) // BLOCK_Q, n_k, values) * BLOCK_K >= least


@functools.cache
def is_hopper(device):
    """Whether a GPU has what `hopper_kernel` is made of."""
    is_nvidia = device.type == "cuda" and torch.version.hip is None
    return is_nvidia and torch.cuda.get_device_capability(device)[0] == 9


def hopper_launch(q, k, v, output, lse, scale, q_offset, more, sequences=None):
    """The launch of `hopper_kernel`, one program for each query tile, head and batch.

    `more` is what it and the portable kernel take behind the scale.
    """
    batch, _, n_q, dim = q.shape
    n_k, value_dim = v.shape[2:]
    longest, form, numbers = n_q, "none", None
    if sequences is not None:
        form, numbers, longest = sequences
        batch = len(numbers) - 1 if form == "packed" else batch
    first, tiles = tiles_of(longest, q_offset, HOPPER_Q)
    arguments = (
        hopper_source(q, HOPPER_Q // 2),
        hopper_source(k, HOPPER_K),
        hopper_source(v, HOPPER_K),
        hopper_source(output, HOPPER_Q // 2),
        output,
        lse,
        numbers,
        n_q,
        n_k,
        q_offset,
        first,
        tiles,
        math.gcd(HEADS * batch, HOPPER_TOGETHER),
        scale * LOG2_E,
        *more,
    )
    options = {
        "HEADS": HEADS,
        "GROUP_SIZE": HEADS // KV_HEADS,
        "HEAD_DIM": dim,
        "VALUE_DIM": value_dim,
        "BLOCK_Q": HOPPER_Q,
        "BLOCK_K": HOPPER_K,
        "STAGES": HOPPER_STAGES[max(dim, value_dim)],
        "SEQUENCES": form,
        "num_warps": 4,
    }
    kind = (q.device, q.dtype, dim, value_dim, form)
    return hopper_kernel, tiles * HEADS * batch, arguments, options, 1, kind


def tiles_of(n_q, q_offset, rows):
    """The first query tile of a call, and how many there are."""
    first = q_offset // rows
    return first, (q_offset + n_q - 1) // rows - first + 1


def hopper_source(tensor, rows):
    """A descriptor of tiles as products on Hopper read them."""
    plain = source_of(tensor, rows, "descriptor")
    # Without the checks of its constructor, as in `source_of`.
    found = TensorDescriptor.__new__(TensorDescriptor)
    found.base, found.shape, found.strides = plain.base, plain.shape, plain.strides
    found.block_shape = plain.block_shape
    found.layout = None
    found.padding = "zero"
    return found


MOST_SPLITS = 64
"""The most programs that share the key tiles of one query tile."""

LEAST_STEPS = 4
"""The fewest key tiles of a share that are worth a program of its own."""

WAVES = 2
"""How many programs each multiprocessor should have."""


def splits_of(q, programs, qt, n_k, values):
    """How many programs share the key tiles of one query tile; 1: none are shared.

    As many as fill the device where `programs`, one for each query tile, leave it
    idle, as a single query does. `qt` is the last tile: its steps stand for all.
    """
    wanted = min(MOST_SPLITS, WAVES * multiprocessors(q.device) // programs)
    if wanted < 2:
        return 1
    steps = most_steps(qt, n_k, values)
    wanted = min(wanted, steps // LEAST_STEPS)
    if wanted < 2:
        return 1
    return cdiv(steps, cdiv(steps, wanted))


@functools.cache
def multiprocessors(device):
    """Those of a GPU; the interpreter is one."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def new_shares(output, splits):
    """Scratch for sums of shares: float32 rows, and two numbers for each."""
    *rows, columns = output.shape
    return tuple(
        output.new_empty((*rows, splits, size), dtype=torch.float32)
        for size in (columns, 2)
    )


def most_steps(qt, n_k, values):
    """The most key tiles that the first head of a group visits for one query tile.

    All tiles where they are listed.
    """
    n_k_tiles = cdiv(n_k, BLOCK_K)
    most = 0
    most = visited(qt, n_k, values)
    return most


PACKED_BYTES = 232448
"""The shared memory that a thread block may take."""


def fits_packed(q, v):
    """Whether shared memory holds the tiles where rows of `q` are gathered.

    A product of float32 keeps such a tile twice.
    """
    columns = max(padded(q.shape[3]), padded(v.shape[3]))
    return 2 * (BLOCK_Q + BLOCK_K) * columns * q.element_size() <= PACKED_BYTES


@torch.no_grad()
def gradients(
    q,
    k,
    v,
    out,
    lse,
    d_out,
    d_lse=None,
    wanted=(),
    /,
    *,
    scale=None,
    q_offset=None,
    lengths=None,
    cu_seqlens=None,
    max_seqlen=None,
    **params,
):
    """The gradients of `attend`: dq, dk, dv, and a dict of those of inputs.

    `out` and `lse` are what `attend` gave, `d_out` and `d_lse` (None: zero) their
    gradients, of any strides. Gradients have the shapes and the dtype of what they
    belong to; `wanted` names the floating inputs of scores whose gradients are computed
    too. The rest, also of sequences, is as for `forward`. The same bits in every run.
    """
    scale, q_offset = check_call(
        NAME,
        q,
        k,
        v,
        heads=HEADS,
        kv_heads=KV_HEADS,
        scale=scale,
        q_offset=q_offset,
        largest_dim=LARGEST_DIM,
        dtypes=DTYPES,
    )
    values = check_params(NAME, PARAMS, params)
    if LAYOUT_SIZE is not None:
        check_length(NAME, LAYOUT_SIZE, q.shape[2], k.shape[2], q_offset)
    given = (lengths, cu_seqlens, max_seqlen)
    sizes = (k.shape[2], q_offset)
    sequences = check_sequences(NAME, q, *sizes, *given)
    if sequences is not None and WHOLE_ONLY_REVERSED:
        came = WHOLE_ONLY_REVERSED
        raise ValueError(f"{NAME}: `lengths`, `cu_seqlens`: refused, as {came}")
    for name in wanted:
        raise ValueError(f"{NAME}: no score reads an input `{name}`")
    check_runs(q, k, v)
    batch, _, n_q, dim = q.shape
    n_k = k.shape[2]
    if batch * n_q == 0 or n_k == 0:
        dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
        return dq, dk, dv, {}
    dq, dk, dv = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
    if sequences is not None and sequences[0] == "packed":
        for gradient in (dq, dk, dv):  # rows of no sequence, and beyond `max_seqlen`
            gradient.zero_()
    if access_of(d_out) == "any":
        d_out = d_out.contiguous()
    d_lse = torch.zeros_like(lse) if d_lse is None else d_lse.contiguous()
    launch_gradients(
        q,
        k,
        v,
        out,
        lse,
        d_out,
        d_lse,
        dq,
        dk,
        dv,
        scale,
        q_offset,
        values,
        sequences,
    )
    return dq, dk, dv, {}


def launch_gradients(
    q,
    k,
    v,
    out,
    lse,
    d_out,
    d_lse,
    dq,
    dk,
    dv,
    scale,
    q_offset,
    values,
    sequences,
):
    """Start the three kernels; query and key gradients do not wait for each other."""
    batch, _, n_q, dim = q.shape
    n_k, value_dim = v.shape[2:]
    columns = max(padded(dim), padded(value_dim))
    elements, longest, form, of_sequences = batch, n_q, "none", None
    if sequences is not None:
        form, of_sequences, longest = sequences
        batch = len(of_sequences) - 1 if form == "packed" else batch
    first_q_tile = q_offset // BLOCK_Q
    n_q_tiles = (q_offset + longest - 1) // BLOCK_Q - first_q_tile + 1
    n_k_tiles = (n_k + BLOCK_K - 1) // BLOCK_K
    if form == "packed":
        n_k_tiles = (n_q_tiles * BLOCK_Q + BLOCK_K - 1) // BLOCK_K
    if n_q_tiles * batch == 0:
        return
    access = access_of(q, k, v, d_out)
    if n_k == 0:
        access = "any"
    ordered = IS_ORDERED and is_ordered(n_q, n_k, q_offset)
    if ordered and access == "descriptor":
        access = "aligned"  # rows are gathered by token
    lists, turned = (), ()
    if LIST_TENSORS or TURNED_TENSORS:
        lists, turned = stored_lists(n_q, n_k, q_offset, q.device)
    # Heads of one key/value head may have orders of their own.
    members = 1 if ordered else HEADS // KV_HEADS
    n_padded = n_q_tiles * BLOCK_Q
    if form == "packed":  # rows of all sequences, end to end
        n_padded = (n_q + BLOCK_Q - 1) // BLOCK_Q * BLOCK_Q
    shape = (elements, HEADS, n_padded)
    shift, delta = (q.new_empty(shape, dtype=torch.float32) for _ in range(2))
    sources = (
        source_of(q, BLOCK_Q, access),
        source_of(k, BLOCK_K, access),
        source_of(v, BLOCK_K, access),
        source_of(d_out, BLOCK_Q, access),
        shift,
        delta,
        of_sequences,
    )
    strides = (*q.stride(), *k.stride(), *v.stride(), *d_out.stride())
    numbers = (
        *strides,
        n_q,
        n_k,
        q_offset,
        first_q_tile,
        n_q_tiles,
        scale,
        *values.values(),
        *[0] * LIST_NUMBERS,
    )
    options = {
        "HEADS": HEADS,
        "GROUP_SIZE": HEADS // KV_HEADS,
        "HEAD_DIM": dim,
        "VALUE_DIM": value_dim,
        "BLOCK_D": padded(dim),
        "BLOCK_DV": padded(value_dim),
        "BLOCK_Q": BLOCK_Q,
        "BLOCK_K": BLOCK_K,
        "ACCESS": access,
        "EXACT": False,
        "SEQUENCES": form,
        "PRECISION": precision_of(q),
        "enable_fp_fusion": True,
    }
    kind = (q.device, q.dtype, dim, value_dim, access)
    with current(q.device):
        programs = cdiv(n_padded, DELTA_ROWS) * HEADS * elements
        delta_kernel[(programs,)](
            out.contiguous(),
            d_out,
            lse.contiguous(),
            d_lse,
            shift,
            delta,
            *d_out.stride(),
            n_q,
            q_offset - first_q_tile * BLOCK_Q,
            n_padded,
            HEADS=HEADS,
            VALUE_DIM=value_dim,
            BLOCK_DV=padded(value_dim),
            ROWS=DELTA_ROWS,
            ACCESS="any" if access == "any" else "aligned",
        )
        programs = n_q_tiles * HEADS * batch
        arguments = (
            *sources,
            dq,
            *lists[:LIST_TENSORS],
            *numbers,
        )
        kernel = ordered_query_gradient_kernel if ordered else query_gradient_kernel
        warps, stages = launch_of("query", columns, q, access)
        more = {
            **options,
            "num_warps": warps,
        }
        first = (kernel, programs, arguments, more, stages, kind)
        again = exact_of(first)
        if HIDES or sequences is not None:
            start_both(first, again)
        else:
            start(*first)
        dk_parts, dv_parts = dk, dv
        if members < HEADS // KV_HEADS:
            shape, wide = (elements, HEADS, n_k), torch.float32
            make = k.new_zeros if form == "packed" else k.new_empty
            dk_parts = make((*shape, dim), dtype=wide)
            dv_parts = make((*shape, value_dim), dtype=wide)
        programs = n_k_tiles * (HEADS // members) * batch
        arguments = (
            *sources,
            dk_parts,
            dv_parts,
            *turned[:TURNED_TENSORS],
            *numbers,
        )
        kernel = ordered_key_gradient_kernel if ordered else key_gradient_kernel
        warps, stages = launch_of("key", columns, q, access)
        more = {
            **options,
            "MEMBERS": members,
            "num_warps": warps,
        }
        first = (kernel, programs, arguments, more, stages, kind)
        again = exact_of(first)
        if HIDES_REVERSED or sequences is not None:
            start_both(first, again)
        else:
            start(*first)
        if members < HEADS // KV_HEADS:
            for whole, some in ((dk, dk_parts), (dv, dv_parts)):
                each = some.view(elements, KV_HEADS, -1, n_k, some.shape[3])
                whole.copy_(each.sum(2))


def is_ordered(n_q, n_k, q_offset):
    """Whether tiles hold positions of the orders: only where queries are the keys."""
    return n_q == n_k and q_offset == 0

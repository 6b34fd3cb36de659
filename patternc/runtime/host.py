"""What is launched for a call of a package.

Made by `python -m patternc.backends.host` from the templates of generated
modules. Do not edit.
"""

# mypy: ignore-errors
# ruff: noqa

import contextlib
import functools
import itertools
import math

import torch

from .checks import (
    LIMIT,
    check_call,
    check_inputs,
    check_length,
    check_own_values,
    check_params,
    check_sequences,
)
from .launch import OutOfResources, TensorDescriptor, cdiv, next_power_of_2


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
HOPPER_WALKS = False
INPUTS, TABLES, LIST_INPUTS = {}, [], []
LISTED, ORDERED, JUDGES = [], [], {}
SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
HAS_STRIPES = HAS_DIAGONALS = HAS_COLUMNS = False
SIZE_Q = SIZE_K = 0  # of chosen blocks
HAS_EPILOGUE = READS_OWN_VALUE = False
SINKS, OUTPUTS, Rows = [], [], None
WIDE_BLOCKS = 0  # numbers of blocks are int32: one kernel for all lengths
ROW_SLOTS = COLUMN_SLOTS = 0  # elements of inputs whose gradients have kernels
READS = PAIR_TABLES = PAIR_SUMS = ()
PAIR_BYTES = 268435456  # what the sums of a launch, and adding them up, may take
MAPS, PLAN_PARAMS, MADE_KEYS, PLACES = [], {}, {}, ()
mark_diagonals_kernel = live_places_kernel = tile_words_kernel = None
stripe_tiles_kernel = None
mark_columns_kernel = list_blocks_kernel = column_gradient_kernel = None
pool_kernel = part_sums_kernel = join_kernel = None
choose_kernel = segment_kernel = mark_kernel = count_kernel = None
stored_lists = visited = keep_within = input_gradients = select_keys = None
add_pair_sums = None

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
    output, lse = run(q, k, v, scale, q_offset, params, True, given)
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
    return run(q, k, v, scale, q_offset, params, False, given)


def run(q, k, v, scale, q_offset, params, epilogue, given):
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
    values = check_params(NAME, PARAMS, params, INPUTS)
    if LAYOUT_SIZE is not None:
        check_length(NAME, LAYOUT_SIZE, q.shape[2], k.shape[2], q_offset)
    if READS_OWN_VALUE:
        check_own_values(NAME, q.shape[2], k.shape[2], q_offset)
    inputs = checked_inputs(q, k, q_offset, params) if INPUTS else {}
    if inputs:
        check_no_gradients(inputs)
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
        launch(
            q, k, v, output, lse, scale, q_offset, values, inputs, epilogue, sequences
        )
    return output, lse


def launch(
    q, k, v, output, lse, scale, q_offset, values, inputs, epilogue, sequences=None
):
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
    pointers, stripes = as_pointers(inputs) if TABLES else (), ()
    if HAS_STRIPES:
        sizes = (batch, n_q, n_k, q_offset)
        stripes = kept_stripes(*sizes, values, pointers, q.device)
    lists, turned = (), ()
    if LISTED:
        given = (values, inputs, False, q.device)
        lists = tile_lists(batch, n_q, n_k, q_offset, *given)
    elif LIST_TENSORS or TURNED_TENSORS:
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
        *stripes[:9],
        *pointers,
        *((k, v) if HAS_STRIPES else ()),
        *((v,) if READS_OWN_VALUE else ()),
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
        *(lists[6:] or [0])[:LIST_NUMBERS],
        *stripes[9:11],
        *(as_numbers(pointers) if pointers else ()),
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
        **({"EPILOGUE": epilogue} if HAS_EPILOGUE else {}),
        "num_warps": warps,
        "enable_fp_fusion": True,
    }
    with current(q.device):
        kernel = ordered_kernel if ordered else forward_kernel
        kind = (q.device, q.dtype, dim, value_dim, access)
        first = (kernel, programs, arguments, options, stages, kind)
        again = exact_of(first, n_q_tiles if shares[0] is None else 1)
        is_alone = HAS_HOPPER and not LISTED and shares[0] is None
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
                *pointers,
                *((v,) if READS_OWN_VALUE else ()),
                n_q,
                n_k,
                q_offset,
                splits,
                *(v.stride() if READS_OWN_VALUE else ()),
                *values.values(),
                *as_numbers(pointers),
                HEADS=HEADS,
                GROUP_SIZE=HEADS // KV_HEADS,
                VALUE_DIM=value_dim,
                BLOCK_DV=padded(value_dim),
                BLOCK_Q=1,
                SHARES=MOST_SPLITS,
                **({"EPILOGUE": epilogue} if HAS_EPILOGUE else {}),
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


def exact_of(launch, tiles=1):
    """The same launch for the tiles that values which are not finite have spoiled.

    A program looks after EXACT_TILES of `tiles` in a row, which are those of a head.
    On eight warps: their code spills less and compiles in two thirds of the time. Not
    in float32, where tiles of 64 rows would then take more shared memory than there is.
    """
    kernel, programs, arguments, options, _, kind = launch
    programs = programs // tiles * -(-tiles // EXACT_TILES)
    options = options | {"EXACT": True}
    if options["PRECISION"] != "tf32x3":
        options["num_warps"] = 8
    return kernel, programs, arguments, options, 1, (*kind, "exact")


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
    Before sm_90 the sums of 128 columns, of 256 in the forward pass, are too many for
    four warps.
    """
    if compiler == "amd":
        return warps, 1
    if compiler == "ampere" and columns > {"forward": 128, "key": 64}.get(kernel, 256):
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


EXACT_TILES = 32
"""The query tiles that a program of the forward pass's second launch looks after."""

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
HOPPER_KEYS = {64: 4096, 128: 0}
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
    """The launch of `hopper_kernel`: a tile is a query tile of a head and batch.

    Each multiprocessor has one program, which computes tile after tile, or else each tile
    has one: where tiles differ in what they take, the device shares them out.
    `more` is what it and the portable kernel take behind the scale.
    """
    batch, _, n_q, dim = q.shape
    n_k, value_dim = v.shape[2:]
    longest, form, numbers = n_q, "none", None
    if sequences is not None:
        form, numbers, longest = sequences
        batch = len(numbers) - 1 if form == "packed" else batch
    first, tiles = tiles_of(longest, q_offset, HOPPER_Q)
    bits = math.gcd(HEADS * batch, HOPPER_TOGETHER).bit_length() - 1
    sections, filled_tiles = HEADS * batch >> bits, tiles << bits
    n_tiles = programs = sections * filled_tiles
    if HOPPER_WALKS and form == "none" and multiprocessors(q.device) < n_tiles:
        programs = multiprocessors(q.device)
        filled_tiles -= filled_tiles % (2 * programs)  # an even number of laps
    arguments = (
        hopper_source(q, HOPPER_Q // 2),
        hopper_source(k, HOPPER_K),
        hopper_source(v, HOPPER_K),
        hopper_source(output, HOPPER_Q // 2),
        output,
        lse,
        numbers,
        n_tiles // programs,
        filled_tiles,
        sections,
        n_q,
        n_k,
        q_offset,
        first,
        tiles,
        bits,
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
    return hopper_kernel, programs, arguments, options, 1, kind


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
    values = check_params(NAME, PARAMS, params, INPUTS)
    if LAYOUT_SIZE is not None:
        check_length(NAME, LAYOUT_SIZE, q.shape[2], k.shape[2], q_offset)
    if READS_OWN_VALUE:
        check_own_values(NAME, q.shape[2], k.shape[2], q_offset)
    inputs = checked_inputs(q, k, q_offset, params) if INPUTS else {}
    given = (lengths, cu_seqlens, max_seqlen)
    sizes = (k.shape[2], q_offset)
    sequences = check_sequences(NAME, q, *sizes, *given)
    if sequences is not None and WHOLE_ONLY_REVERSED:
        came = WHOLE_ONLY_REVERSED
        raise ValueError(f"{NAME}: `lengths`, `cu_seqlens`: refused, as {came}")
    for name in wanted:
        if name not in READS:
            raise ValueError(f"{NAME}: no score reads an input `{name}`")
    check_runs(q, k, v)
    batch, _, n_q, dim = q.shape
    n_k = k.shape[2]
    if batch * n_q == 0 or n_k == 0:
        dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
        found = {name: torch.zeros_like(inputs[name]) for name in wanted}
        return dq, dk, dv, found
    read_gradients = []
    for slots, n in ((ROW_SLOTS, n_q), (COLUMN_SLOTS, n_k)):
        shape = (slots if wanted else 0, batch, HEADS, n)
        own = q.new_zeros(shape, dtype=torch.float32) if READS else None
        read_gradients.append(own)
    wide = torch.float32
    totals = {x: torch.zeros_like(inputs[x], dtype=wide) for x in wanted}
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
        inputs,
        read_gradients,
        totals,
    )
    if wanted and (ROW_SLOTS or COLUMN_SLOTS):
        rows, columns = read_gradients
        input_gradients(rows, columns, q_offset, values, inputs, totals)
    found = {name: x.to(inputs[name].dtype) for name, x in totals.items()}
    return dq, dk, dv, found


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
    inputs,
    read_gradients,
    totals,
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
    pointers, stripes = as_pointers(inputs) if TABLES else (), ()
    if HAS_STRIPES:
        sizes = (batch, n_q, n_k, q_offset)
        stripes = kept_stripes(*sizes, values, pointers, q.device)
    lists, turned = (), ()
    if LISTED:
        given = (values, inputs, False, q.device)
        lists = tile_lists(batch, n_q, n_k, q_offset, *given)
    elif LIST_TENSORS or TURNED_TENSORS:
        lists, turned = stored_lists(n_q, n_k, q_offset, q.device)
    if LISTED and TURNED_TENSORS:
        turned = reversed_lists(lists, first_q_tile, n_k)
    key_stripes = stripes[:9]
    if HAS_DIAGONALS:
        key_stripes = key_stripes_of(stripes, n_q, n_k, q_offset)
    if SIZE_Q:
        given = (n_q, n_k, q_offset, values, pointers, q.device)
        key_stripes = (*key_stripes[:7], *blocks_of(*given, reverse=True))
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
        *(lists[6:] or [0])[:LIST_NUMBERS],
        *stripes[9:11],
        *(as_numbers(pointers) if pointers else ()),
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
        has_pairs = any(name in totals for name in PAIR_TABLES)
        for part in parts_of(batch, n_q_tiles, n_k_tiles, has_pairs):
            sums = new_sums(q, part, n_k_tiles, has_pairs)
            programs = part[1] * HEADS * part[3]
            arguments = (
                *sources,
                dq,
                *([read_gradients[0]] if ROW_SLOTS else []),
                *sums,
                *lists[:LIST_TENSORS],
                *stripes[:9],
                *pointers,
                *((k, v) if HAS_STRIPES else ()),
                *numbers,
                *((*part[:3], batch) if PAIR_SUMS else ()),
            )
            kernel = ordered_query_gradient_kernel if ordered else query_gradient_kernel
            warps, stages = launch_of("query", columns, q, access)
            more = {
                **options,
                "num_warps": warps,
            }
            if ROW_SLOTS:
                more["READ_GRADIENTS"] = read_gradients[0].numel() > 0
            if PAIR_SUMS:
                more["PAIR_GRADIENTS"] = has_pairs
            own_kind = (*kind, "pairs") if has_pairs else kind
            first = (kernel, programs, arguments, more, stages, own_kind)
            again = exact_of(first)
            if HIDES or sequences is not None:
                start_both(first, again)
            else:
                start(*first)
            if has_pairs:
                site = (first_q_tile, n_k_tiles, n_k, values, inputs, totals)
                add_pair_sums(sums, part, *site, lists if ordered else None)
        dk_parts, dv_parts = dk, dv
        wide = torch.float32
        if HAS_COLUMNS:
            dk_parts, dv_parts = (torch.empty_like(x, dtype=wide) for x in (dk, dv))
        elif members < HEADS // KV_HEADS:
            shape = (elements, HEADS, n_k)
            make = k.new_zeros if form == "packed" else k.new_empty
            dk_parts = make((*shape, dim), dtype=wide)
            dv_parts = make((*shape, value_dim), dtype=wide)
        programs = n_k_tiles * (HEADS // members) * batch
        arguments = (
            *sources,
            dk_parts,
            dv_parts,
            *([read_gradients[1]] if COLUMN_SLOTS else []),
            *turned[:TURNED_TENSORS],
            *key_stripes,
            *pointers,
            *((k, v) if HAS_STRIPES else ()),
            *numbers,
        )
        kernel = ordered_key_gradient_kernel if ordered else key_gradient_kernel
        warps, stages = launch_of("key", columns, q, access)
        more = {
            **options,
            "MEMBERS": members,
            "num_warps": warps,
        }
        if COLUMN_SLOTS:
            more["READ_GRADIENTS"] = read_gradients[1].numel() > 0
        own_kind = kind
        first = (kernel, programs, arguments, more, stages, own_kind)
        again = exact_of(first)
        if HIDES_REVERSED or sequences is not None:
            start_both(first, again)
        else:
            start(*first)
        if HAS_COLUMNS:
            programs = n_k_tiles * KV_HEADS * batch
            spoiled = q.new_empty(programs, dtype=torch.int8)
            of_columns = (*stripes[:6], stripes[12], *stripes[7:9])
            for member in range(HEADS // KV_HEADS):
                arguments = (
                    *sources,
                    spoiled,
                    dk_parts,
                    dv_parts,
                    *turned[:TURNED_TENSORS],
                    *of_columns,
                    *pointers,
                    *((k, v) if HAS_STRIPES else ()),
                    *numbers,
                    member,
                )
                kernel = column_gradient_kernel
                warps, stages = launch_of("key", columns, q, access)
                more = {**options, "num_warps": warps}
                first = (kernel, programs, arguments, more, stages, kind)
                again = exact_of(first)
                if HAS_STRIPES or sequences is not None:
                    start_both(first, again)
                else:
                    start(*first)
            dk.copy_(dk_parts)
            dv.copy_(dv_parts)
        elif members < HEADS // KV_HEADS:
            for whole, some in ((dk, dk_parts), (dv, dv_parts)):
                each = some.view(elements, KV_HEADS, -1, n_k, some.shape[3])
                whole.copy_(each.sum(2))


def finish(out, lse, v, /, *, q_offset=None, **params):
    """Sinks and `output` clauses, in operations that autograd follows.

    `out` [B, HEADS, n_q, D] and `lse` [B, HEADS, n_q] are what `attend` gave for `v`
    [B, KV_HEADS, n_k, D]; the result is what `forward` would have given.
    """
    n_q, n_k, device = out.shape[2], v.shape[2], out.device
    q_offset = n_k - n_q if q_offset is None else q_offset
    values = check_params(NAME, PARAMS, params, INPUTS)
    inputs = checked_inputs(out, v, q_offset, params) if INPUTS else {}
    dtype, wide = out.dtype, lse.dtype
    out = out.to(wide)
    b = torch.arange(out.shape[0], device=device)[:, None, None, None]
    q = torch.arange(n_q, device=device)[:, None] + q_offset
    length = torch.full((), n_k, device=device)

    at_rows = Rows(b, q, length, values, inputs, wide)
    for heads, logit in SINKS:
        parts = [torch.arange(head, head + 1, device=device) for head in heads]
        at = torch.cat(parts)
        sink = logit(at_rows, at[:, None, None])
        rows, row_lse = join_sink_rows(out[:, at], lse[:, at], sink)
        out = with_heads(out, at, rows)
        lse = with_heads(lse, at, row_lse)
    for heads, value in OUTPUTS:
        parts = [torch.arange(head, head + 1, device=device) for head in heads]
        at, own = torch.cat(parts), None
        if READS_OWN_VALUE:
            own = v[:, at // (HEADS // KV_HEADS), q_offset : q_offset + n_q].to(wide)
        o = out[:, at]
        rows = value(at_rows, at[:, None, None], o, own)
        out = with_heads(out, at, rows.expand(o.shape))
    return out.to(dtype), lse


def join_sink_rows(rows, lse, sink):
    """The softmax with one more logit, which has no value."""
    sink = sink.expand(*lse.shape, 1)[..., 0]
    # Rows without keys take the sink as it is; -inf - -inf would be NaN.
    is_empty = lse == -math.inf
    own = lse.masked_fill(is_empty, 0.0)
    share = torch.sigmoid(own - sink)[..., None]
    return rows * share, torch.where(is_empty, sink, torch.logaddexp(own, sink))


def with_heads(x, at, values):
    """`x` [B, HEADS, ...] with `values` [B, heads, ...] in the place of some heads."""
    return x.index_copy(1, at, values)


def is_ordered(n_q, n_k, q_offset):
    """Whether tiles hold positions of the orders: only where queries are the keys."""
    return n_q == n_k and q_offset == 0


def checked_inputs(q, k, q_offset, given):
    """The inputs of a call, each with a batch axis of 1 or B first."""
    return check_inputs(
        NAME,
        INPUTS,
        given,
        batch=q.shape[0],
        heads=HEADS,
        kv_heads=KV_HEADS,
        n_q=q.shape[2],
        n_k=k.shape[2],
        q_offset=q_offset,
        device=q.device,
        dtype=q.dtype,
    )


def check_no_gradients(inputs):
    """Refuse inputs whose gradient this kernel would lose."""
    for name, tensor in inputs.items():
        if torch.is_grad_enabled() and tensor.requires_grad:
            raise ValueError(
                f"{NAME}: `{name}`: expected no gradient to be asked for, as this"
                " call is not seen by autograd; call it under torch.no_grad()"
            )


def as_pointers(inputs):
    """The inputs that the kernel reads, in dtypes that it takes."""
    found = []
    for name in TABLES:
        tensor = inputs[name]
        if tensor.dtype == torch.bool:
            tensor = tensor.view(torch.int8)
        elif not (tensor.is_floating_point() or tensor.dtype in SIGNED):
            tensor = tensor.to(torch.int64)
        found.append(tensor)
    return found


def as_numbers(pointers):
    """For each input the stride of its batch axis, then sizes and strides."""
    found = []
    for tensor in pointers:
        found.append(tensor.stride(0) if tensor.shape[0] > 1 else 0)
        for size, stride in zip(tensor.shape[1:], tensor.stride()[1:]):
            found += [size, stride]
    return found


def read(table, b, *places):
    """Elements of an input, 0 outside of it; integers come as int64."""
    index, inside = [b.clamp(max=len(table) - 1)], True
    for place, size in zip(places, table.shape[1:]):
        if not isinstance(place, torch.Tensor):  # filled, and not copied to the device
            place = torch.full((), place, device=table.device)
        inside = inside & (place >= 0) & (place < size)
        index.append(place.clamp(0, max(size - 1, 0)))
    if table.numel() == 0:
        return torch.zeros((), dtype=torch.int64, device=table.device)
    found = table[tuple(index)]
    if not found.is_floating_point():
        found = found.to(torch.int64)
    return found if inside is True else torch.where(inside, found, 0)


CAPTURED = set()
"""Where the tables lie that CUDA graphs write: a replay changes them unseen."""


def may_keep(tables, device):
    """Whether what follows from tables may be kept for the next call.

    Not while a CUDA graph is captured, whose replay must make it again, nor where tables
    are what a graph writes.
    """
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return False
    return not CAPTURED or CAPTURED.isdisjoint(x.data_ptr() for x in tables)


def note_captured(tables, device):
    """Remember tables that are made while a CUDA graph is captured."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        CAPTURED.update(x.data_ptr() for x in tables)


LISTS = {}
"""The tile lists of the calls that came last, the newest at the end."""


def tile_lists(batch, n_q, n_k, q_offset, values, inputs, ordered, device, blocks=None):
    """The listed key tiles of each head and query tile, kept for the next call.

    int32 `tiles`; and for [batch, HEADS, n_q_tiles] int64 `first`, int32 `partial` and
    `full`: from `first` on come the PARTIAL tiles, then the FULL ones. Heads that have
    ranges have none. The tokens at the positions of each order follow, int32
    [orders, n_k], and which order each head has, int32 [batch, HEADS]; at last how many
    heads a batch element is ahead of the one before, 0 if all have the same lists.

    `blocks` are the sizes of a tile if they are not BLOCK_Q and BLOCK_K.
    Built on the device, or on the host where `is_little`; `build_lists` says at what
    cost. Lists are kept for the tensors that made them, as long as no operation of
    PyTorch writes to these. A CUDA graph builds its own, so that a replay builds them
    again; where that `WAITS` it can't, and takes those of the call before.
    """
    tables = {name: inputs[name] for name in LIST_INPUTS}
    try:
        versions = [tensor._version for tensor in tables.values()]
    except RuntimeError:  # a tensor of inference mode counts no writes
        versions = None
    places = [(x.data_ptr(), x.shape, x.stride(), x.dtype) for x in tables.values()]
    blocks = blocks or (BLOCK_Q, BLOCK_K)
    sizes = (n_q, n_k, q_offset, ordered, *values.values(), device, blocks)
    key = (sizes, batch if tables else 0, *places, *(versions or ()))
    keeps = WAITS or may_keep(tables.values(), device)
    if keeps and key in LISTS:
        return LISTS[key][0]
    place, own = device, tables
    if is_little(n_q, n_k, tables, ordered):
        place, own = torch.device("cpu"), {name: x.cpu() for name, x in tables.items()}
    with torch.device(place):
        lists = build_lists(batch, n_q, n_k, q_offset, values, own, ordered, blocks)
    if place != device:
        *made, ahead = lists
        lists = (*(x.to(device) for x in made), ahead)
    if keeps and versions is not None:
        # The tensors are kept too, so that no other one can come to their addresses.
        LISTS[key] = lists, tables
        while len(LISTS) > MOST_LISTS:
            del LISTS[next(iter(LISTS))]
    return lists


def together(heads, size):
    """Heads in groups of `size`, those of a group side by side; 0: all are one group."""
    groups = {}
    for head in heads:
        groups.setdefault(head // size if size else 0, []).append(head)
    return [*groups.values()]


def extents(first, count, block, start, stop):
    """The positions of tiles, [tiles, block]; a ragged tile repeats an end of its own."""
    at = (first + torch.arange(count))[:, None] * block + torch.arange(block)
    return at.clamp(start, stop - 1) if stop > start else at[:0]


# A profile is what is known of one side of the mask: for each level of nodes the least
# and the greatest value, and a step: all values are equal modulo it. [elements, nodes].
def of_tiles(values, by_step):
    """The lowest level of one part, from its values [elements, tiles, block]."""
    low, high = values.amin(-1), values.amax(-1)
    step = torch.ones_like(low)
    if by_step:
        apart = values - low[..., None]
        while apart.shape[-1] > 1:
            apart = torch.gcd(apart[..., ::2], apart[..., 1::2])
        step = apart[..., 0]
    return low, high, step


def profile(values, by_step):
    """All levels of one part."""
    levels = [of_tiles(values, by_step)]
    while levels[-1][0].shape[1] > 1:
        levels.append(joined(*levels[-1]))
    return levels


def joined(low, high, step):
    """Pairs of neighbours; a last one alone stays."""
    if low.shape[1] % 2:
        low, high, step = (torch.cat([x, x[:, -1:]], 1) for x in (low, high, step))
    apart = (low[:, ::2] - low[:, 1::2]).abs()
    steps = torch.gcd(torch.gcd(step[:, ::2], step[:, 1::2]), apart)
    return (
        torch.minimum(low[:, ::2], low[:, 1::2]),
        torch.maximum(high[:, ::2], high[:, 1::2]),
        steps,
    )


def known(levels, level, e, node):
    """What a profile says of nodes."""
    chosen = levels[min(level, len(levels) - 1)]
    return tuple(x[0][node] if len(x) == 1 else x[e, node] for x in chosen)


def pyramid(table, b, places):
    """Least and greatest elements of cells that double in size from level to level.

    `places` holds an index for each axis, or None for an axis that is searched; one
    table for each element.
    """
    index, inside = [b.clamp(max=len(table) - 1)], torch.ones_like(b, dtype=torch.bool)
    for place, size in zip(places, table.shape[1:]):
        if place is None:
            index.append(slice(None))
            continue
        place = as_tensor(place).expand(len(b))
        inside &= (place >= 0) & (place < size)
        index.append(place.clamp(0, max(size - 1, 0)))
    searched = [n for n, place in zip(table.shape[1:], places) if place is None]
    if table.numel() == 0:
        return [(torch.zeros(len(b), *[1] * len(searched), dtype=torch.int64),) * 2]
    # Index tensors that a slice keeps apart come out in front: the elements lead.
    own = table[tuple(index)].to(torch.int64)
    own = torch.where(inside.view(-1, *[1] * len(searched)), own, 0)
    levels = [(own, own)]
    while max(levels[-1][0].shape[1:], default=1) > 1:
        levels.append(tuple(map(halved, levels[-1], (torch.minimum, torch.maximum))))
    return levels


def halved(cells, join):
    """Pairs of neighbours joined along every axis but the first."""
    for axis in range(1, cells.dim()):
        if cells.shape[axis] % 2:
            last = cells.narrow(axis, cells.shape[axis] - 1, 1)
            cells = torch.cat([cells, last], axis)
        pairs = cells.unflatten(axis, (-1, 2))
        cells = join(pairs.select(axis + 1, 0), pairs.select(axis + 1, 1))
    return cells


def look_up(levels, e, *boxes):
    """Bounds of a read over boxes of indices: each meets two cells a side at most."""
    e, *ends = torch.broadcast_tensors(e, *(end for box in boxes for end in box[:2]))
    boxes = [*zip(ends[::2], ends[1::2])]
    sizes = levels[0][0].shape[1:]
    outside, width = torch.zeros_like(e, dtype=torch.bool), torch.ones_like(e)
    ends = []
    for (low, high), size in zip(boxes, sizes):
        outside = outside | (low < 0) | (high >= size)
        low, high = (x.clamp(0, size - 1) for x in (low, high))
        width = torch.maximum(width, high - low + 1)
        ends.append((low, high))
    fitting = torch.zeros_like(e)
    for level in range(len(levels) - 1):
        fitting += (width > 1 << level).to(torch.int64)
    least = greatest = torch.zeros_like(e)
    for level, (small, large) in enumerate(levels):
        lows, highs = [], []
        for corner in itertools.product(*ends):
            at = [
                (x >> level).clamp(max=n - 1) for x, n in zip(corner, small.shape[1:])
            ]
            lows.append(small[(e, *at)])
            highs.append(large[(e, *at)])
        here = fitting == level
        least = torch.where(here, torch.stack(lows).amin(0), least)
        greatest = torch.where(here, torch.stack(highs).amax(0), greatest)
    least = torch.where(outside, least.clamp(max=0), least)
    return (
        least,
        torch.where(outside, greatest.clamp(min=0), greatest),
        torch.ones_like(e),
    )


# Interval arithmetic with steps: an integer is (least, greatest, step), a truth value
# (may be true, may be false). A step of 0 says that there is one value, 1 nothing.
def as_tensor(value):
    """A number as a tensor of the device at hand, which is filled and not copied to."""
    if isinstance(value, torch.Tensor):
        return value
    return torch.full((), value, dtype=torch.int64)


def exactly(value):
    value = as_tensor(value)
    return value, value, torch.zeros_like(value)


def always(value):
    return tuple(torch.full((), x, dtype=torch.bool) for x in (value, not value))


def truth_of(a):
    return a[1] > 0, a[0] < 1


def hull(*corners):
    low = high = corners[0]
    for corner in corners[1:]:
        low, high = torch.minimum(low, corner), torch.maximum(high, corner)
    return low, high


def sum_of(a, b):
    return a[0] + b[0], a[1] + b[1], torch.gcd(a[2], b[2])


def difference_of(a, b):
    return a[0] - b[1], a[1] - b[0], torch.gcd(a[2], b[2])


def product_of(a, b):
    low, high = hull(a[0] * b[0], a[0] * b[1], a[1] * b[0], a[1] * b[1])
    step = torch.where(b[2] == 0, a[2] * b[0].abs(), 1)
    return low, high, torch.where(a[2] == 0, b[2] * a[0].abs(), step)


def quotient_of(a, b):
    low, high = hull(a[0] // b[0], a[0] // b[1], a[1] // b[0], a[1] // b[1])
    exact = (b[2] == 0) & (a[2] % b[0] == 0)
    return low, high, torch.where(exact, (a[2] // b[0]).abs(), 1)


def remainder_of(a, b):
    positive, fixed = b[0] > 0, b[0] == b[1]
    low = torch.where(positive, 0, b[0] + 1)
    high = torch.where(positive, b[1] - 1, 0)
    # The remainder by a constant keeps what the step and the constant share.
    step = torch.where(fixed, torch.gcd(a[2], b[0].abs()), 1).clamp(min=1)
    rest = a[0] % step
    low = torch.where(fixed, low + (rest - low) % step, low)
    high = torch.where(fixed, high - (high - rest) % step, high)
    one_period = fixed & (a[0] // b[0] == a[1] // b[0])
    inside = positive & (a[0] >= 0)
    high = torch.where(inside, torch.minimum(high, a[1]), high)
    low = torch.where(one_period, a[0] % b[0], low)
    high = torch.where(one_period, a[1] % b[0], high)
    return low, high, torch.where(one_period, a[2], torch.where(low == high, 0, step))


def either_step(a, b, is_a, is_b):
    both = torch.gcd(torch.gcd(a[2], b[2]), (a[0] - b[0]).abs())
    return torch.where(is_a, a[2], torch.where(is_b, b[2], both))


def least_of(a, b):
    step = either_step(a, b, a[1] <= b[0], b[1] <= a[0])
    return torch.minimum(a[0], b[0]), torch.minimum(a[1], b[1]), step


def greatest_of(a, b):
    step = either_step(a, b, a[0] >= b[1], b[0] >= a[1])
    return torch.maximum(a[0], b[0]), torch.maximum(a[1], b[1]), step


def absolute_of(a):
    low, high = torch.abs(a[0]), torch.abs(a[1])
    straddles = (a[0] < 0) & (a[1] > 0)
    step = torch.where(straddles, torch.gcd(a[2], 2 * low), a[2])
    middle = low % torch.where(step == 0, 1, step)
    least = torch.where(straddles, middle, torch.minimum(low, high))
    return least, torch.maximum(low, high), step


def less(a, b):
    return a[0] < b[1], a[1] >= b[0]


def at_most(a, b):
    return a[0] <= b[1], a[1] > b[0]


def equal(a, b):
    step = torch.gcd(a[2], b[2])
    apart = (a[0] - b[0]) % torch.where(step == 0, 1, step)
    meet = (a[0] <= b[1]) & (b[0] <= a[1]) & (apart == 0)
    same = (a[0] == a[1]) & (b[0] == b[1]) & (a[0] == b[0])
    return meet, ~same


def unequal(a, b):
    return opposite(equal(a, b))


def opposite(a):
    return a[1], a[0]


def all_of(*terms):
    true, false = always(True)
    for term in terms:
        true, false = true & term[0], false | term[1]
    return true, false


def any_of(*terms):
    true, false = always(False)
    for term in terms:
        true, false = true | term[0], false & term[1]
    return true, false


MOST_LISTS = 8
WAITS = True
FIRST_BOXES = 1 << 17
LITTLE = 1 << 17
"""Up to so many tokens of heads, and elements of tables, are judged on the host."""


def is_little(n_q, n_k, tables, ordered):
    """Whether the host lists tiles as fast as a device does with small launches.

    It then need not load some sixty kernels of PyTorch first, of which NVIDIA's has to
    compile one, the greatest common divisor: half a second in a new process.
    """
    per_batch = max([len(table) for table in tables.values()], default=1)
    covers = ORDERED if ordered else LISTED
    lists = sum(len(together(x["heads"], x["alike"])) for x in covers)
    elements = sum(table.numel() for table in tables.values())
    return per_batch * lists * (n_q + n_k) + elements <= LITTLE


def build_lists(batch, n_q, n_k, q_offset, values, tables, ordered, blocks):
    """See `tile_lists`. The cost follows the tokens and the live tiles.

    How many of these there are is waited for.
    """
    block_q, block_k = blocks
    per_batch = max([len(table) for table in tables.values()], default=1)
    first_q_tile = q_offset // block_q
    n_q_tiles = (q_offset + n_q - 1) // block_q - first_q_tile + 1
    first = torch.zeros(per_batch, HEADS, n_q_tiles, dtype=torch.int64)
    partial = torch.zeros(per_batch, HEADS, n_q_tiles, dtype=torch.int32)
    full = torch.zeros(per_batch, HEADS, n_q_tiles, dtype=torch.int32)
    tiles, found = [torch.zeros(0, dtype=torch.int32)], 0
    orders, n_orders = [torch.arange(n_k)[None]], 1
    order_of = torch.zeros(per_batch, HEADS, dtype=torch.int32)
    for cover in ORDERED if ordered else LISTED:
        # A batch element and a head; those of heads that have the same tiles are one.
        alone = ordered and cover["order_per_head"]
        heads = together(cover["heads"], 1 if alone else cover["alike"])
        b = torch.arange(per_batch).repeat_interleave(len(heads))
        h = torch.tensor([some[0] for some in heads]).repeat(per_batch)
        tokens = None
        positions = extents(first_q_tile, n_q_tiles, block_q, q_offset, q_offset + n_q)
        keys = extents(0, -(-n_k // block_k), block_k, 0, n_k)
        sides = [x[None] if tokens is None else tokens[:, x] for x in (positions, keys)]
        judge = JUDGES[cover["judge"]](*sides, b, h, n_k, values, tables)
        counts = (len(b), n_q_tiles, sides[1].shape[1])
        e, qt, kt, is_partial = live_tiles(judge, *counts)
        row = e * n_q_tiles + qt
        place = torch.sort((row * 2 + ~is_partial) * counts[2] + kt)[1]
        tiles.append(kt[place].to(torch.int32))
        numbers = torch.zeros(2, len(b) * n_q_tiles, dtype=torch.int64)
        numbers[0].index_add_(0, row, is_partial.to(torch.int64))
        numbers[1].index_add_(0, row, (~is_partial).to(torch.int64))
        both = numbers.sum(0)
        starts = torch.cumsum(both, 0) - both + found
        for at, some in enumerate(heads):
            for target, source in (
                (first, starts),
                (partial, numbers[0]),
                (full, numbers[1]),
            ):
                shaped = source.view(per_batch, len(heads), 1, n_q_tiles)[:, at]
                target[:, some] = shaped.to(target.dtype)
        found += len(kt)
    lists = (torch.cat(tiles), first, partial, full)
    orders = torch.cat(orders).to(torch.int32)
    return *lists, orders, order_of, HEADS if per_batch > 1 else 0


def live_tiles(judge, elements, q_tiles, k_tiles):
    """The tiles that may see something: element, query and key tile, whether PARTIAL.

    Node `i` of a level is the tiles from `i * 2**level` on. Pairs of nodes are split in
    four until they are EMPTY or FULL, beginning with as many as are judged at once.
    """
    level = 0
    most = max(q_tiles, k_tiles, 1)
    while (
        most > 1 << level
        and elements * -(-q_tiles >> level) * -(-k_tiles >> level) > FIRST_BOXES
    ):
        level += 1
    sizes = [(n + (1 << level) - 1) >> level for n in (q_tiles, k_tiles)]
    axes = [torch.arange(n) for n in (elements, *sizes)]
    e, q, k = (x.reshape(-1) for x in torch.meshgrid(*axes, indexing="ij"))
    is_full = torch.zeros(len(e), dtype=torch.bool)
    while True:
        may_see, may_hide = (x.expand(len(e)) for x in judge(level, e, q, k))
        is_full = is_full | (may_see & ~may_hide)
        kept = torch.nonzero(is_full | may_see)[:, 0]
        e, q, k, is_full = e[kept], q[kept], k[kept], is_full[kept]
        if level == 0:
            return e, q, k, ~is_full
        level -= 1
        e, is_full = e.repeat(4), is_full.repeat(4)
        q = torch.cat([2 * q, 2 * q, 2 * q + 1, 2 * q + 1])
        k = torch.cat([2 * k, 2 * k + 1, 2 * k, 2 * k + 1])
        sizes = [(n + (1 << level) - 1) >> level for n in (q_tiles, k_tiles)]
        inside = torch.nonzero((q < sizes[0]) & (k < sizes[1]))[:, 0]
        e, q, k, is_full = e[inside], q[inside], k[inside], is_full[inside]


REVERSED = {}
"""The lists of the calls that came last, turned round, the newest at the end."""


def reversed_lists(lists, first_q_tile, n_k):
    """For each key tile the listed query tiles: as `tile_lists`, turned round.

    Built on the device by one stable sort, at a cost that follows the live tiles, and
    kept as long as the lists are; their number is waited for.
    """
    key = (lists[0].data_ptr(), first_q_tile, n_k)
    if key in REVERSED and REVERSED[key][0] is lists[0]:
        return REVERSED[key][1]
    with torch.device(lists[0].device):
        found = reverse_lists(lists, first_q_tile, n_k)
    REVERSED.pop(key, None)
    REVERSED[key] = lists[0], found
    while len(REVERSED) > MOST_LISTS:
        del REVERSED[next(iter(REVERSED))]
    return found


def reverse_lists(lists, first_q_tile, n_k):
    """See `reversed_lists`."""
    tiles, *rest = lists[:4]
    shape, n_q_tiles = rest[0].shape[:-1], rest[0].shape[-1]
    n_k_tiles = (n_k + BLOCK_K - 1) // BLOCK_K
    # Heads and batch elements with the same list are turned round once.
    numbers = torch.cat([x.reshape(-1, n_q_tiles).to(torch.int64) for x in rest], dim=1)
    alike, own = torch.unique(numbers, dim=0, return_inverse=True)
    first, partial, full = alike.view(len(alike), 3, n_q_tiles).unbind(1)
    counts = (partial + full).reshape(-1)
    row = torch.repeat_interleave(torch.arange(len(counts)), counts)
    within = torch.arange(len(row)) - (torch.cumsum(counts, 0) - counts)[row]
    kt = tiles[first.reshape(-1)[row] + within].to(torch.int64)
    is_partial = within < partial.reshape(-1)[row]
    column = row // n_q_tiles * n_k_tiles + kt
    place = torch.sort(column * 2 + (~is_partial).to(torch.int64), stable=True)[1]
    found = (row % n_q_tiles + first_q_tile)[place].to(torch.int32)
    ends = torch.zeros(2, len(alike) * n_k_tiles, dtype=torch.int64)
    ends[0].index_add_(0, column, is_partial.to(torch.int64))
    ends[1].index_add_(0, column, (~is_partial).to(torch.int64))
    both = ends.sum(0)
    starts = torch.cumsum(both, 0) - both

    def of_heads(values, dtype):
        return values.view(len(alike), n_k_tiles)[own].view(*shape, -1).to(dtype)

    kinds = of_heads(ends[0], torch.int32), of_heads(ends[1], torch.int32)
    return found, of_heads(starts, torch.int64), *kinds, *lists[4:]


MOST_STATE_LISTS = 2
MOST_STATES = 1 << 21
EMPTY, FULL, PARTIAL = 0, 1, 2


def is_little_state(*_sizes):
    """Whether the host lists tiles: it would have to wait for the tables."""
    return False


def build_state_lists(batch, n_q, n_k, q_offset, values, tables, ordered, blocks):
    """See `tile_lists`. A selection has lists as long as they could be.

    So nothing is waited for: every tile is looked at, in parts that fit into memory.
    After what `tile_lists` says come the states of all tiles, int8 [lists + 1,
    n_q_tiles, n_k_tiles], and which list each head has, int64 [batch, HEADS]; the last
    is for heads that have none.
    """
    block_q, block_k = blocks
    per_batch = max([len(table) for table in tables.values()], default=1)
    first_q_tile = q_offset // block_q
    n_q_tiles = (q_offset + n_q - 1) // block_q - first_q_tile + 1
    n_k_tiles = -(-n_k // block_k)
    orders, n_orders = [torch.arange(n_k)[None]], 1
    order_of = torch.zeros(per_batch, HEADS, dtype=torch.int32)
    list_of = torch.full((per_batch, HEADS), -1, dtype=torch.int64)
    positions = extents(first_q_tile, n_q_tiles, block_q, q_offset, q_offset + n_q)
    keys = extents(0, n_k_tiles, block_k, 0, n_k)
    states, n_lists = [], 0
    for cover in ORDERED if ordered else LISTED:
        # A batch element and a head; those of heads that have the same tiles are one.
        alone = ordered and cover["order_per_head"]
        heads = together(cover["heads"], 1 if alone else cover["alike"])
        b = torch.arange(per_batch).repeat_interleave(len(heads))
        h = numbered([some[0] for some in heads]).repeat(per_batch)
        tokens = None
        sides = [x[None] if tokens is None else tokens[:, x] for x in (positions, keys)]

        def judge(*chosen, sides=sides, at=cover["judge"]):
            return JUDGES[at](*chosen, n_k, values, tables)

        states.append(states_of(judge, *sides, b, h))
        lists = n_lists + torch.arange(len(b)).view(per_batch, -1)
        for at, some in enumerate(heads):
            for head in some:
                list_of[:, head] = lists[:, at]
        n_lists += len(b)
    states.append(torch.zeros(1, n_q_tiles, n_k_tiles, dtype=torch.int8))
    states = torch.cat(states)
    list_of = torch.where(list_of < 0, n_lists, list_of)
    orders = torch.cat(orders).to(torch.int32)
    more = orders, order_of, HEADS if per_batch > 1 else 0, states, list_of
    return *listed(states, list_of), *more


def numbered(values):
    """Integers as a tensor that is filled, run by run, and not copied to the device."""
    runs = []
    for value in values:
        if runs and runs[-1][1] == value:
            runs[-1][1] += 1
        else:
            runs.append([value, value + 1])
    return torch.cat([torch.arange(*run) for run in runs])


def states_of(judge, positions, keys, b, h):
    """The state of every tile, int8 [elements, query tiles, key tiles]."""
    n_q_tiles, n_k_tiles = positions.shape[1], keys.shape[1]
    found = torch.zeros(len(b), n_q_tiles, n_k_tiles, dtype=torch.int8)
    most_rows = max(1, MOST_STATES // max(n_k_tiles, 1))
    rows = min(n_q_tiles, most_rows)
    elements = max(1, most_rows // max(rows, 1))
    steps = range(0, len(b), elements), range(0, n_q_tiles, max(rows, 1))
    for some, first in itertools.product(*steps) if n_k_tiles else ():
        own, tiles = slice(some, some + elements), slice(first, first + rows)
        q, k = (x if len(x) == 1 else x[own] for x in (positions, keys))
        part = found[own, tiles]
        axes = [torch.arange(size) for size in part.shape]
        e, qt, kt = axes[0][:, None, None], axes[1][:, None], axes[2]
        may_see, may_hide = judge(q[:, tiles], k, b[own], h[own])(0, e, qt, kt)
        part.copy_(may_see.to(torch.int8) * (1 + may_hide.to(torch.int8)))
    return found


def listed(states, list_of, start=0):
    """What `tile_lists` says of tiles, from states [lists, own, other].

    `start` is the number of the first of the other tiles. A list has room for all of
    them: the EMPTY ones come last and are not counted.
    """
    lists, own, other = states.shape
    tiles = torch.empty(states.shape, dtype=torch.int32)
    numbers = torch.arange(start, start + other, dtype=torch.int32)
    partial, full = (
        (states == kind).sum(2, dtype=torch.int32) for kind in (PARTIAL, FULL)
    )
    step = max(1, MOST_STATES // max(own * other, 1))
    for some in range(0, lists, step):
        part = states[some : some + step]
        before = torch.zeros(part.shape[:2], dtype=torch.int64)
        place = torch.zeros(part.shape, dtype=torch.int64)
        for kind in (PARTIAL, FULL, EMPTY):
            is_kind = part == kind
            nth = before[..., None] + is_kind.cumsum(2) - 1
            place = torch.where(is_kind, nth, place)
            before = before + is_kind.sum(2)
        source = numbers.expand(part.shape)
        tiles[some : some + step].scatter_(2, place, source)
    first = (list_of[..., None] * own + torch.arange(own)) * other
    return tiles.view(-1), first, partial[list_of], full[list_of]


def cells(table, b, *places):
    """The least and the greatest element that each pair of tiles reads.

    `places` are a side, "q", "k" or "" for neither, and the indices along an axis,
    [1 or elements, tiles, block], or of neither side [1 or elements, 1, 1].
    """
    if table.numel() == 0:
        return exactly(0)
    source = table.view(torch.uint8) if table.dtype == torch.bool else table
    places = [(side, as_tensor(place)) for side, place in places]
    index, inside, of_keys = [b.clamp(max=len(table) - 1)[:, None, None]], None, []
    for (side, place), size in zip(places, table.shape[1:]):
        if side == "k":
            of_keys.append((place, size))
            index.append(slice(None))
            continue
        is_inside = (place >= 0) & (place < size)
        inside = is_inside if inside is None else inside & is_inside
        index.append(place.clamp(0, size - 1))
    # Index tensors that a slice keeps apart come out in front: elements, tiles, block.
    low = high = source[tuple(index)]
    if inside is not None:
        inside = inside.expand(1, 1, 1) if inside.dim() == 0 else inside
        low = high = low.masked_fill(~inside[(..., *[None] * len(of_keys))], 0)
    low, high = low.amin(2), high.amax(2)
    is_captured = table.is_cuda and torch.cuda.is_current_stream_capturing()
    has_one = [len(place) for place, _ in of_keys] == [1]
    # While a CUDA graph is captured there may be no cuBLAS yet, in autograd's thread.
    if table.dtype == torch.bool and has_one and not is_captured:
        return truths_of_tiles(low, high, *of_keys[0])
    index = [torch.arange(n).view(-1, *ones) for n, ones in zip(low.shape, ONES)]
    inside = None
    for place, size in of_keys:
        is_inside = ((place >= 0) & (place < size))[:, None]
        inside = is_inside if inside is None else inside & is_inside
        index.append(place.clamp(0, size - 1)[:, None])
    if inside is None:
        low, high = low[..., None], high[..., None]
    else:
        read = [x[tuple(index)].masked_fill(~inside, 0) for x in (low, high)]
        low, high = read[0].amin(3), read[1].amax(3)
    low, high = low.to(torch.int64), high.to(torch.int64)
    return low, high, torch.ones_like(low)


ONES = (1, 1, 1), (1, 1)


def truths_of_tiles(low, high, place, size):
    """`cells` of truth values, from those of whole query tiles [elements, tiles, size].

    `place` [1, key tiles, block] is where a key reads. How many keys of a tile read each
    column is a matrix, so that one product counts the keys that read a true element.
    The counts are at most a block, which 16 bits hold exactly.
    """
    _, n_k_tiles, block = place.shape
    keys = torch.zeros(size, n_k_tiles, dtype=torch.int32)
    inside = (place[0] >= 0) & (place[0] < size)
    at = place[0].clamp(0, size - 1), torch.arange(n_k_tiles)[:, None].expand(-1, block)
    keys.index_put_(at, inside.to(torch.int32), accumulate=True)
    wide = torch.float16 if low.is_cuda else torch.float32
    keys = keys.to(wide)
    found = (high.to(wide) @ keys > 0).to(torch.int64)
    return (low.to(wide) @ keys == block).to(torch.int64), found, torch.ones_like(found)


def reversed_state_lists(lists, first_q_tile, n_k):
    """For each key tile the listed query tiles: as `tile_lists`, turned round.

    From the states of all tiles, on the device; nothing is waited for.
    """
    states, list_of = lists[7:]
    with torch.device(states.device):
        turned = states.transpose(1, 2).contiguous()
        return *listed(turned, list_of, first_q_tile), *lists[4:7]


def sums_shape(kind, tiles, n_k_tiles):
    """The sums of some query tiles: (tiles, shifts or key tiles, numbers of a tile)."""
    if kind != "diagonals":
        return tiles, n_k_tiles, *kind
    unit = min(BLOCK_Q, BLOCK_K)
    shifts = (tiles - 1) * (BLOCK_Q // unit) + (n_k_tiles - 1) * (BLOCK_K // unit) + 1
    return tiles, shifts, (max(BLOCK_Q // BLOCK_K, 1) + 1) * BLOCK_K


def parts_of(batch, n_q_tiles, n_k_tiles, wanted):
    """Launches: first query tile, tiles, first batch element, elements.

    Several where the sums of all tiles, and what adds them up, would take more than
    PAIR_BYTES.
    """
    if not wanted:
        return [(0, n_q_tiles, 0, batch)]
    each = 0
    for kind in PAIR_SUMS:
        numbers = math.prod(sums_shape(kind, n_q_tiles, n_k_tiles)) // n_q_tiles
        each += HEADS * numbers * (4 if kind == "diagonals" else 32)
    tiles = min(max(PAIR_BYTES // (each * batch), 1), n_q_tiles)
    elements = min(max(PAIR_BYTES // (each * tiles), 1), batch)
    return [
        (tile, min(tiles, n_q_tiles - tile), b, min(elements, batch - b))
        for b in range(0, batch, elements)
        for tile in range(0, n_q_tiles, tiles)
    ]


def new_sums(q, part, n_k_tiles, wanted):
    """Where the programs of a part store their sums, 0 for tiles that none visits."""
    _, tiles, _, elements = part
    if not wanted:
        return [q.new_empty(0, dtype=torch.float32) for _ in PAIR_SUMS]
    return [
        q.new_zeros(
            (elements, HEADS, *sums_shape(kind, tiles, n_k_tiles)), dtype=torch.float32
        )
        for kind in PAIR_SUMS
    ]


def gathered_sums(sums, kind, first_tile, n_k_tiles, shared):
    """`q`, `k` and the sums there, [elements, H, rows, columns].

    Those of diagonals are one row, of pairs (d, 0); those of blocks and of the diagonals
    of squares stand at their first pair. `shared`: batch elements read the same, so that they add up here.
    """
    if shared:
        sums = sums.sum(0, keepdim=True)
    device = sums.device
    if len(kind) == 3:
        size = kind[2] // 2
        sums = sums.permute(0, 1, 2, 4, 3, 5, 6)
        sums = sums.reshape(*sums.shape[:2], -1, n_k_tiles * kind[1], kind[2])
        d = torch.arange(-size, size, device=device)
        q = torch.arange(sums.shape[2], device=device)[:, None, None] * size
        k = torch.arange(sums.shape[3], device=device)[:, None] * size
        q = first_tile * BLOCK_Q + q + d.clamp(min=0)
        k = k - d.clamp(max=0)
        q, k = torch.broadcast_tensors(q, k)
        return q.flatten(1), k.flatten(1), sums.flatten(3)
    if kind != "diagonals":
        q_step, k_step = BLOCK_Q // kind[0], BLOCK_K // kind[1]
        sums = sums.permute(0, 1, 2, 4, 3, 5)
        sums = sums.reshape(*sums.shape[:2], -1, n_k_tiles * kind[1])
        q = torch.arange(sums.shape[2], device=device)[:, None] * q_step
        k = torch.arange(sums.shape[3], device=device)[None] * k_step
        return first_tile * BLOCK_Q + q, k, sums
    sums = sums.sum(2)
    unit, shifts = min(BLOCK_Q, BLOCK_K), sums.shape[2]
    steps = sums.shape[3] // unit
    total = sums.new_zeros((*sums.shape[:2], shifts + steps - 1, unit))
    for step in range(steps):
        own = sums[..., step * unit : (step + 1) * unit]
        total[:, :, step : step + shifts] += own
    total = total.flatten(2)[:, :, None]
    d = torch.arange(total.shape[3], device=device)[None]
    d = d + first_tile * BLOCK_Q - n_k_tiles * BLOCK_K
    return d, torch.zeros_like(d), total


def tokens_at(q, k, lists, b, h):
    """The tokens at positions of the orders, [elements, heads, rows, 1] and of columns."""
    tokens, order_of = lists[4].to(torch.int64), lists[5]
    own = tokens[order_of[b.clamp(max=len(order_of) - 1), h][..., 0, 0]]
    last = tokens.shape[1] - 1
    q, k = q[:, 0].clamp(0, last), k[0].clamp(0, last)
    return own[:, :, q][..., None], own[:, :, None, k]


def add_pairs(total, gradient, b, *places):
    """Add the gradients [elements, heads, rows, columns], always in the same order.

    Where heads and elements read at the same pairs, these are sorted once for all.
    """
    places = [
        place
        if isinstance(place, torch.Tensor)
        else torch.full((), place, device=gradient.device)
        for place in places
    ]
    of_pairs = [place.dim() in (1, 2) for place in places]
    of_heads = [place.dim() == 0 or place.shape[-2:].numel() == 1 for place in places]
    if not all(x or y for x, y in zip(of_pairs, of_heads)) or total.numel() == 0:
        add_reads(total, gradient, b, *places)
        return
    sizes = total.shape[1:]
    entry, inside, entries = torch.zeros_like(b[0, 0]), True, 1
    for place, size, is_own in zip(places, sizes, of_pairs):
        if is_own:
            inside = inside & (place >= 0) & (place < size)
            entry = entry * size + place.clamp(0, size - 1)
            entries *= size
    gradient = torch.where(inside, gradient, 0)
    elements, heads, rows, columns = gradient.shape
    entry = entry.expand(rows, columns).reshape(-1)
    sums = gradient.new_zeros((entries, elements * heads))
    of_entries = gradient.reshape(elements * heads, -1).T
    sums.index_put_((entry,), of_entries, accumulate=True)
    rest = torch.arange(entries, device=gradient.device)
    for at in reversed(range(len(places))):
        if of_pairs[at]:
            places[at], rest = rest % sizes[at], rest // sizes[at]
        elif places[at].dim():
            places[at] = places[at][..., 0]
    add_reads(total, sums.T.reshape(elements, heads, -1), b[..., 0], *places)


def add_at_pairs(total, gradient, b, first_q, of_q, of_k, *places):
    """Add the gradients [elements, heads, rows, columns] of an element for each pair.

    The axes `of_q` and `of_k` of the input are its `q` and `k`, `places` the others.
    """
    total = total.movedim((1 + of_q, 1 + of_k), (-2, -1))
    low = max(-first_q, 0)
    high = max(min(total.shape[-2] - first_q, gradient.shape[2]), low)
    columns = min(total.shape[-1], gradient.shape[3])
    total = total[..., max(first_q, 0) : max(first_q, 0) + high - low, :columns]
    gradient = gradient[:, :, low:high, :columns]
    index, inside = [b[..., 0, 0].clamp(max=len(total) - 1)], True
    for place, size in zip(places, total.shape[1:]):
        if not isinstance(place, torch.Tensor):
            place = torch.full((), place, device=gradient.device)
        place = place[..., 0, 0] if place.dim() else place
        inside = inside & (place >= 0) & (place < size)
        index.append(place.clamp(0, max(size - 1, 0)))
    if total.numel() == 0:
        return
    if inside is not True:
        gradient = torch.where(inside[..., None, None], gradient, 0)
    total.index_put_(tuple(index), total[tuple(index)] + gradient)


def add_reads(total, gradient, b, *places):
    """Add the gradients of `read`, always in the same order."""
    shape, device = gradient.shape, gradient.device
    index, inside = [b.clamp(max=len(total) - 1).expand(shape)], True
    for place, size in zip(places, total.shape[1:]):
        if not isinstance(place, torch.Tensor):
            place = torch.full((), place, device=device)
        inside = inside & (place >= 0) & (place < size)
        index.append(place.clamp(0, max(size - 1, 0)).expand(shape))
    if total.numel() == 0:
        return
    if inside is not True:
        gradient = torch.where(inside, gradient, 0)
    total.index_put_(tuple(index), gradient, accumulate=True)


STRIPES = {}
"""The stripes of the calls that came last, the newest at the end."""

MOST_STRIPES = 2
NO_TILE = 1 << 30

MARKED_WORDS = 32
"""Words of 32 diagonals or columns that one program marks."""

LIVE_PLACES = 2048
"""Keys of which one program finds out whether diagonals show them."""


def kept_stripes(batch, n_q, n_k, q_offset, values, pointers, device):
    """`stripes_of`, kept for the same inputs as long as nothing writes to these.

    What a CUDA graph reads or writes is not kept: its replay must build them again.
    """
    if not may_keep(pointers, device):
        return stripes_of(n_q, n_k, q_offset, values, pointers, device)
    try:
        versions = [tensor._version for tensor in pointers]
    except RuntimeError:  # a tensor of inference mode counts no writes
        versions = None
    places = [(x.data_ptr(), x.shape, x.stride(), x.dtype) for x in pointers]
    sizes = (batch, n_q, n_k, q_offset, *values.values(), device)
    key = (sizes, *places, *(versions or ()))
    if key in STRIPES:
        return STRIPES[key][0]
    found = stripes_of(n_q, n_k, q_offset, values, pointers, device)
    if versions is not None:
        # The tensors are kept too, so that no other one can come to their addresses.
        STRIPES[key] = found, pointers
        while len(STRIPES) > MOST_STRIPES:
            del STRIPES[next(iter(STRIPES))]
    return found


def stripes_of(n_q, n_k, q_offset, values, pointers, device):
    """What each head chooses, as the kernel visits it.

    int32 `words`, whose bits say which diagonals are chosen; `tiles`, how far ahead of
    the first query of a tile the PARTIAL and the FULL tiles of diagonals begin, and the
    bits of the former; `held`, which keys these hold; `columns`, the chosen keys, and their bits; and `bounds`
    [elements * HEADS, n_q_tiles, 6]: which PARTIAL tiles, FULL tiles and columns a query
    tile visits, from and to; `blocks` and `ends`, see `blocks_of`; how many heads a batch element is ahead of the one before,
    0 if all have the same; and the first block of queries. Gradients take the bytes of chosen diagonals, and int32
    [elements * HEADS, 3]: how many columns there are, and how far ahead of a query the
    first and the last key stand where one counts.

    All lists are sorted and as long as they could be: how many entries they have is
    known on the device alone, and not waited for.
    """
    elements = max([len(table) for table in pointers], default=1)
    rows = elements * HEADS
    first_q_tile = q_offset // BLOCK_Q
    n_q_tiles = (q_offset + n_q - 1) // BLOCK_Q - first_q_tile + 1
    q0 = (first_q_tile + torch.arange(n_q_tiles, device=device)) * BLOCK_Q
    numbers = (*values.values(), *as_numbers(pointers))
    ahead = HEADS if elements > 1 else 0
    bounds = torch.zeros(rows, n_q_tiles, 6, dtype=torch.int32, device=device)
    words = marks = tiles = tile_words = held = columns = column_words = bounds
    about, blocks, ends, first_q_block = bounds, bounds, bounds, 0
    if n_k > 0:
        given = (rows, n_q, n_k, q_offset, values, numbers, pointers, q0)
        if HAS_DIAGONALS:
            found = chosen_diagonals(*given)
            words, tiles, tile_words, held, bounds[:, :, :4], marks = found
        if HAS_COLUMNS:
            found = chosen_columns(*given)
            columns, column_words, bounds[:, :, 4:], about = found
        if SIZE_Q:
            first_q_block = block_counts(n_q, n_k, q_offset)[0]
            given = (n_q, n_k, q_offset, values, pointers, device)
            blocks, ends = blocks_of(*given)
    found = words, tiles, tile_words, held, columns, column_words, bounds, blocks, ends
    return *found, ahead, first_q_block, marks, about


def first_of(found, values):
    """Where in each sorted row the first entry of at least each value stands."""
    values = values.to(torch.int32).expand(*found.shape[:-1], values.shape[-1])
    return torch.searchsorted(found, values.contiguous(), out_int32=True)


def chosen_diagonals(rows, n_q, n_k, q_offset, values, numbers, pointers, q0):
    """Bits of diagonals, tiles, keys that these hold, which are visited, and bytes."""
    n, device = n_q + n_k - 1, q0.device
    marks = torch.empty(rows, n, dtype=torch.int8, device=device)
    words = torch.empty(rows, cdiv(n, 32), dtype=torch.int32, device=device)
    shape = (rows, n + BLOCK_Q + BLOCK_K)
    held = torch.zeros(shape, dtype=torch.int32, device=device)
    with current(device):
        mark_diagonals_kernel[(cdiv(n, 32 * MARKED_WORDS), rows)](
            marks,
            words,
            *pointers,
            n_q,
            n_k,
            q_offset,
            *numbers,
            HEADS=HEADS,
            WORDS=MARKED_WORDS,
        )
    least = q_offset + n_q - 1
    within = columns_count(n_q, n_k, q_offset, values, device)
    tiles, tile_words = diagonal_tiles(marks, within, held, least, BLOCK_Q, BLOCK_K)
    ends = [first_of(tiles, 1 - q0 - BLOCK_K), first_of(tiles, n_k - q0)]
    ends = torch.stack(ends, 3).transpose(1, 2).flatten(2)
    return words, tiles, tile_words, held, ends, marks


def diagonal_tiles(marks, within, held, least, block_q, block_k):
    """The tiles of marked diagonals, and the bits of the PARTIAL ones.

    `within`, where columns count, has one row or HEADS; it may be None.
    """
    rows, n = marks.shape
    n_tiles = cdiv(n + block_q - 1, block_k) + 1
    shape = (rows, 2, n_tiles)
    tiles = torch.full(shape, NO_TILE, dtype=torch.int32, device=marks.device)
    count = cdiv(block_q, 64) + cdiv(block_k, 64)
    count *= 1 if within is None else 2
    shape = (rows, n_tiles, count)
    words = torch.empty(shape, dtype=torch.int64, device=marks.device)
    width = min(32, block_k)
    n_words = cdiv(n_tiles, 4) * 4 * (block_k // width)
    shape = (2, n_words, rows)
    places = torch.empty(shape, dtype=torch.int32, device=marks.device)
    with current(marks.device):
        live_places_kernel[(cdiv(n_words * width, LIVE_PLACES), rows)](
            marks,
            places,
            n,
            n_words,
            rows,
            BLOCK_Q=block_q,
            BLOCK_K=block_k,
            PLACES=LIVE_PLACES,
            WIDTH=width,
        )
        stripe_tiles_kernel[(cdiv(rows, 32),)](
            places,
            tiles,
            n_words,
            rows,
            least,
            n_tiles,
            WIDTH=width,
            BLOCK_K=block_k,
            LANES=32,
            num_warps=1,
        )
        tile_words_kernel[(cdiv(n_tiles, 32), rows)](
            marks,
            within,
            tiles,
            words,
            held,
            n,
            least,
            n_tiles,
            1 if within is None else len(within),
            HEADS=HEADS,
            BLOCK_Q=block_q,
            BLOCK_K=block_k,
            TILES=32,
        )
    return tiles, words


def columns_count(n_q, n_k, q_offset, values, device):
    """Where a column counts, int8 [1 or HEADS, diagonals]; None without columns."""
    if not HAS_COLUMNS:
        return None
    ahead = torch.arange(n_q + n_k - 1, device=device)
    ahead -= q_offset + n_q - 1
    found = counts_within(ahead, n_k, values, device)
    return found.to(torch.int8).contiguous()


def chosen_columns(rows, n_q, n_k, q_offset, values, numbers, pointers, q0):
    """The chosen keys in order, their bits, which of them are visited, and where."""
    device = q0.device
    marks = torch.empty(rows, n_k, dtype=torch.int8, device=device)
    words = torch.empty(rows, cdiv(n_k, 32), dtype=torch.int32, device=device)
    with current(device):
        mark_columns_kernel[(cdiv(n_k, 32 * MARKED_WORDS), rows)](
            marks, words, *pointers, n_k, *numbers, HEADS=HEADS, WORDS=MARKED_WORDS
        )
    columns = torch.full((rows, n_k + 1), n_k, dtype=torch.int32, device=device)
    nth = marks.cumsum(1, dtype=torch.int32) - 1
    nth = torch.where(marks != 0, nth, n_k).to(torch.int64)
    keys = torch.arange(n_k, dtype=torch.int32, device=device)
    columns.scatter_(1, nth, keys.expand(rows, n_k))
    columns = columns[:, :n_k].contiguous()
    far, near = reach(n_q, n_k, q_offset, values, device)
    ends = [q0 + far, q0 + BLOCK_Q + near]
    ends = [x.clamp(max=n_k).repeat(rows // len(x), 1) for x in ends]
    first, last = (first_of(columns, x) for x in ends)
    ends = torch.stack([first, torch.maximum(first, last)], 2)
    count = marks.sum(1, keepdim=True, dtype=torch.int32)
    about = [x.to(torch.int32).repeat(rows // len(x), 1) for x in (count, far, near)]
    return columns, words, ends, torch.cat(about, 1)


def reach(n_q, n_k, q_offset, values, device):
    """How far ahead of a query the first and the last key stand where a column counts.

    Two tensors, [1 or HEADS, 1].
    """
    ahead = torch.arange(n_q + n_k - 1, device=device) - (q_offset + n_q - 1)
    keep = counts_within(ahead, n_k, values, device)
    # Where none counts the first is beyond the last of all, and the last before it.
    far = torch.where(keep, ahead, ahead[-1] + 1).amin(1, keepdim=True)
    return far, torch.where(keep, ahead, ahead[0] - 1).amax(1, keepdim=True)


def counts_within(ahead, n_k, values, device):
    """Whether a column counts for a key so far `ahead` of a query, [1 or HEADS, n]."""
    keep = keep_within("columns", ahead, n_k, values)
    return keep.expand(-1, len(ahead))


def blocks_of(n_q, n_k, q_offset, values, pointers, device, reverse=False):
    """The blocks that each block of queries sees, or that see each block of keys.

    int16 or int32 `blocks` [rows, own, other]: FULL ones in order from the front, PARTIAL
    ones from the back; int32 `ends` [rows, own, 2]: how many PARTIAL and FULL ones.
    """
    rows = max([len(table) for table in pointers], default=1) * HEADS
    first, n_q_blocks, n_k_blocks = block_counts(n_q, n_k, q_offset)
    own, other = n_q_blocks, n_k_blocks
    if reverse:
        own, other = other, own
    dtype = torch.int16 if other < WIDE_BLOCKS else torch.int32
    blocks = torch.empty(rows, own, other, dtype=dtype, device=device)
    ends = torch.zeros(rows, own, 2, dtype=torch.int32, device=device)
    if n_k == 0:
        return blocks, ends
    ahead = torch.arange(n_q + n_k - 1, device=device) - (q_offset + n_q - 1)
    keep = keep_within("blocks", ahead, n_k, values)
    keep = keep.expand(-1, len(ahead))
    with current(device):
        list_blocks_kernel[(own, rows)](
            blocks,
            ends,
            keep.cumsum(1, dtype=torch.int32),
            *pointers,
            n_q,
            n_k,
            q_offset,
            first,
            own,
            other,
            len(keep),
            *values.values(),
            *as_numbers(pointers),
            HEADS=HEADS,
            SIZE_Q=SIZE_Q,
            SIZE_K=SIZE_K,
            CHUNK=256,  # one kernel for all lengths
            REVERSE=reverse,
        )
    return blocks, ends


def block_counts(n_q, n_k, q_offset):
    """The first block of queries of a call, and how many blocks of both there are."""
    first = q_offset // SIZE_Q
    last = (q_offset + n_q - 1) // SIZE_Q
    return first, last - first + 1, cdiv(n_k, SIZE_K)


def key_stripes_of(stripes, n_q, n_k, q_offset):
    """`stripes_of`, with the tiles of diagonals as the key tiles of a call see them.

    They begin at any query, as far ahead of the first key for every key tile; `bounds`
    [rows, n_k_tiles, 4] says which PARTIAL and which FULL tiles see a key tile.
    """
    marks, least = stripes[11].flip(1), n_k - 1 - q_offset
    found = diagonal_tiles(marks, None, None, least, BLOCK_K, BLOCK_Q)
    tiles = found[0]
    k0 = torch.arange(cdiv(n_k, BLOCK_K), device=marks.device) * BLOCK_K
    first = first_of(tiles, q_offset + 1 - k0 - BLOCK_Q)
    last = first_of(tiles, q_offset + n_q - k0)
    bounds = torch.stack([first, last], 3).transpose(1, 2).flatten(2).contiguous()
    return stripes[0], *found, *stripes[3:6], bounds, *stripes[7:9]


def plan(q, k, *, scale=None, q_offset=None, **given):
    """What the selections choose in a call: further arguments of `forward`.

    forward(q, k, v, **plan(q, k)). A bool table [B, HEADS, ...] for each selection, by
    its name, and where their keys start. The arguments are those of `forward`; `given`
    are the run-time parameters that selections read. Nothing waits for the device.
    Raises as `forward` does.
    """
    scale, q_offset = check_call(
        NAME,
        q,
        k,
        k,
        heads=HEADS,
        kv_heads=KV_HEADS,
        scale=scale,
        q_offset=q_offset,
        largest_dim=LARGEST_DIM,
        dtypes=DTYPES,
    )
    values = check_params(NAME, PLAN_PARAMS, given)
    with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
        return select(q.detach(), k.detach(), scale, q_offset, values)


def select(q, k, scale, q_offset, values):
    """The tables of a checked call, and where their keys start, by name."""
    n_q, n_k = q.shape[2], k.shape[2]
    last = q_offset + n_q - 1
    found = {}
    if n_q == 0 or n_k == 0:
        for name, keys in MADE_KEYS.items():
            shape = (*q.shape[:2], *[0] * keys)
            found[name] = q.new_zeros(shape, dtype=torch.bool)
        found |= dict.fromkeys(PLACES, 0)
        return found
    found = select_keys(q, k, scale, q_offset, values)
    tables = [x for x in found.values() if isinstance(x, torch.Tensor)]
    note_captured(tables, q.device)
    return found


PLANNED_AT_ONCE = 2**24  # numbers of all batch elements and heads


def spread_groups(how, sums, ranges, size=1):
    """The numbers of all groups, and which have a pair, from those of some.

    `sums` are values, counts and the first of each key; heads are joined in groups of
    `size`.
    """
    values, counts, starts = sums
    edges = []
    for dim, (start, (first, last)) in reversed(list(enumerate(zip(starts, ranges)))):
        before = start - first
        edges += [before, last - first + 1 - before - values.shape[2 + dim]]
    neutral = {"max": -math.inf, "min": math.inf}.get(how, 0.0)
    values = torch.nn.functional.pad(values, edges, value=neutral)
    counts = torch.nn.functional.pad(counts, edges)
    if size > 1:
        join = {"max": torch.amax, "min": torch.amin}.get(how, torch.sum)
        values = join(values.unflatten(1, (-1, size)), 2).repeat_interleave(size, 1)
        counts = counts.unflatten(1, (-1, size)).sum(2).repeat_interleave(size, 1)
    if how == "mean":
        values = values / counts.clamp(min=1)
    return values, counts > 0


def summed_heads(numbers, live, size):
    """Live entries of groups of `size` heads added up: each of the heads gets the sums."""
    live = live.expand(numbers.shape).unflatten(1, (-1, size))
    sums = torch.where(live, numbers.unflatten(1, (-1, size)), 0).sum(2)
    return sums.repeat_interleave(size, 1), live.any(2).repeat_interleave(size, 1)


def softmax_of(numbers, live):
    """Over live entries of the last axis; 0 where they are all minus infinity."""
    shown = torch.where(live, numbers, -math.inf)
    top = shown.amax(-1, keepdim=True)
    shares = torch.exp(shown - torch.where(top == -math.inf, 0, top))
    total = shares.sum(-1, keepdim=True)
    return shares / torch.where(total == 0, 1, total)


def axis(like, low, high, place, keys):
    """The values of one key of several, as an axis of [1, 1, ...]."""
    shape = [-1 if at == 2 + place else 1 for at in range(2 + keys)]
    return torch.arange(low, high, device=like.device).view(shape)


def runs(like, each, size):
    """Rows of a map with `each` numbers, some at a time: the first and the end."""
    step = max(1, PLANNED_AT_ONCE // max(1, like.shape[0] * like.shape[1] * each))
    return [(low, min(low + step, size)) for low in range(0, size, step)]


def chosen(choose, numbers, live, always, *amounts):
    """`choose` in every scope, the last axis of [B, HEADS, ..., groups]."""
    kinds = live.to(torch.int8) + (live & always).to(torch.int8)
    if kinds.shape[0] != 1 or kinds.shape[1] != 1:
        kinds = kinds.expand(numbers.shape)
    rows = numbers.reshape(-1, numbers.shape[-1]).contiguous()
    kinds = kinds.reshape(-1, kinds.shape[-1]).contiguous()
    return choose(rows, kinds, *amounts).view(numbers.shape)


ROW_TILE, KEY_TILE = 64, 128
DIAGONAL_TILE, DIAGONAL_STEPS, DIAGONAL_STAGES = 64, 16, 3
PROBE_WARPS = 4
PART_ROWS, PART_TILE, PART_DEPTH = 128, 256, 64
PART_STAGES, PART_WARPS = 4, 8
PARTS_AT_ONCE = 2**26
JOIN_TILE = 256
ROW_SHARES = 1024  # programs that sum over rows, at least, where keys allow it


class Probe:
    """The map of the scores of some rows: its kernels and what they need to know.

    `first` and `last` are absolute positions of queries of the call, [first, last).
    Values are float32, in natural units or, with `is_softmax`, shares of a row's sum.
    With a `stride`, rows and keys are of so many tokens: see `parts_of_map`.
    """

    def __init__(
        self,
        kernels,
        q,
        k,
        scale,
        q_offset,
        first,
        last,
        params,
        is_softmax,
        stride=1,
        residue=0,
    ):
        self.kernels, self.q, self.k = kernels, q, k
        self.q_offset, self.first, self.rows = q_offset, first, max(0, last - first)
        self.is_softmax, self.params = is_softmax, params
        self.stride, self.residue = stride, residue
        self.factor = scale * LOG2_E if is_softmax else scale
        dim = q.shape[3]
        self.options = {
            "HEADS": q.shape[1],
            "GROUP_SIZE": q.shape[1] // k.shape[1],
            "HEAD_DIM": dim,
            "BLOCK_D": padded(dim),
            "PRECISION": precision_of(q),
            "ALIGNED": access_of(q, k) != "any",
            "num_warps": PROBE_WARPS,
            **fitting(q, ROW_TILE, KEY_TILE),
        }
        self.found_lse = None

    def start(self, name, grid, before, sizes, **options):
        """Launch one of the map's kernels."""
        if 0 in grid:
            return
        with current(self.q.device):
            self.kernels[name][grid](
                self.q,
                self.k,
                *before,
                *self.q.stride(),
                *self.k.stride(),
                self.k.shape[2],
                self.q_offset,
                self.first,
                self.rows,
                *sizes,
                self.factor,
                *self.params,
                **{**self.options, **options},
            )

    @property
    def lse(self):
        """Of every row, once; of a map that is no softmax nothing reads it."""
        if self.found_lse is None:
            empty = self.q.new_empty(0, dtype=torch.float32)
            self.found_lse = self.row_sums() if self.is_softmax else empty
        return self.found_lse

    def row_sums(self):
        """The log-sum-exp of every row, base 2, [B, HEADS, rows]; 0 of one without pairs."""
        batch, heads, n_k = *self.q.shape[:2], self.k.shape[2]
        row_tiles = cdiv(self.rows, self.options["ROWS"])
        tiles = cdiv(n_k, self.options["BLOCK"])
        wanted = cdiv(ROW_SHARES, max(1, batch * heads * row_tiles))
        share = max(4, cdiv(tiles, wanted))
        shape = (batch, heads, self.rows, cdiv(tiles, share))
        parts = self.q.new_empty(shape, dtype=torch.float32)
        lse = parts.new_empty(shape[:3])
        self.start("row_sums", (shape[3], row_tiles, batch * heads), (parts,), (share,))
        self.join_parts(parts, lse)
        return lse

    def join_parts(self, parts, lse):
        """The log-sum-exps of rows, of those of their parts on the last axis."""
        *front, rows, subs = parts.shape
        grid = (cdiv(rows, 8), math.prod(front))
        if 0 not in grid:
            with current(self.q.device):
                part_sums_kernel[grid](parts, lse, rows, subs, ROWS=8, BLOCK=JOIN_TILE)

    def room(self, *shape):
        """Values and numbers of pairs of [B, HEADS, ...] groups, that a kernel writes."""
        shape = (*self.q.shape[:2], *shape)
        new = self.q.new_empty if self.rows else self.q.new_zeros
        return new(shape, dtype=torch.float32), new(shape, dtype=torch.int32)

    def summed(self, how, by, *sizes):
        """Values and counts of the groups that there are, and the first of each key."""
        n_k, last = self.k.shape[2], self.first + self.rows - 1
        if by == "columns":
            return *self.by_column(how, *sizes), (0,)
        if by == "blocks":
            return *self.by_block(how, *sizes), (self.first // sizes[0], 0)
        is_anti = by == "antidiagonals"
        base = self.first if is_anti else self.first - n_k + 1
        found = self.by_diagonal(how, base, self.rows + n_k - 1, is_anti)
        if by == "back diagonals":
            return *(x.flip(2) for x in found), (-last,)
        return *found, (base,)

    def by_column(self, how, size):
        """The map's values joined, and the number of pairs, for blocks of `size` keys."""
        n_k = self.k.shape[2]
        values, counts = self.room(n_k)
        grid = (
            cdiv(n_k, self.options["BLOCK"]),
            values.shape[0] * values.shape[1],
        )
        self.start(
            "columns",
            grid,
            (self.lse, values, counts),
            (),
            HOW=how,
            SOFTMAX=self.is_softmax,
        )
        if size == 1:
            return values, counts
        more = -n_k % size
        neutral = {"max": -math.inf, "min": math.inf}.get(how, 0.0)
        values = torch.nn.functional.pad(values, (0, more), value=neutral)
        values = values.unflatten(2, (-1, size))
        counts = torch.nn.functional.pad(counts, (0, more)).unflatten(2, (-1, size))
        join = {"max": torch.amax, "min": torch.amin, "sum": torch.sum}[how]
        return join(values, 3), counts.sum(3, dtype=torch.int32)

    def by_diagonal(self, how, base, diagonals, is_anti):
        """The same for q - k, or q + k, from `base` on."""
        values, counts = self.room(diagonals)
        tile = fitting(self.q, ROW_TILE, DIAGONAL_TILE, DIAGONAL_STAGES)
        width = tile["BLOCK"] * DIAGONAL_STEPS
        grid = (cdiv(diagonals, width), values.shape[0] * values.shape[1])
        self.start(
            "diagonals",
            grid,
            (self.lse, values, counts),
            (base, diagonals),
            HOW=how,
            SOFTMAX=self.is_softmax,
            ANTI=is_anti,
            STEPS=DIAGONAL_STEPS,
            ONE=self.rows <= tile["ROWS"],
            **tile,
        )
        return values, counts

    def by_block(self, how, row_block, key_block):
        """The same for blocks of rows, from that of the first, and of keys.

        `key_block` is a power of two, or so many times 128. Rows are taken some
        at a time, so that there are never more than PARTS_AT_ONCE parts, about.
        """
        keys = cdiv(self.k.shape[2], self.stride)
        options = fitting_parts(self.q)
        sub = math.gcd(key_block, options["BLOCK"])
        subs, blocks = cdiv(keys, sub), cdiv(keys, key_block)
        first = self.first // row_block
        count = (self.first + self.rows - 1) // row_block - first + 1
        values, counts = self.room(count, blocks)
        heads = values.shape[0] * values.shape[1]
        if 0 in values.shape or not self.rows:
            return values, counts
        step = max(1, PARTS_AT_ONCE // (heads * row_block * subs))
        for at in range(0, count, step):
            some = min(step, count - at)
            low = max((first + at) * row_block - self.first, 0)
            high = min((first + at + some) * row_block - self.first, self.rows)
            parts = values.new_empty(heads, high - low, subs)
            part_counts = parts.new_empty(parts.shape, dtype=torch.int16)
            self.start_parts(parts, part_counts, low, high, sub, how, options)
            lse = parts.new_empty(parts.shape[:2])
            if self.is_softmax:
                self.join_parts(parts, lse)
            with current(self.q.device):
                join_kernel[(some, cdiv(blocks, JOIN_TILE), heads)](
                    parts,
                    part_counts,
                    lse,
                    values[:, :, at:],
                    counts[:, :, at:],
                    self.first + low,
                    high - low,
                    first + at,
                    row_block,
                    subs,
                    blocks,
                    count * blocks,
                    EACH=key_block // sub,
                    ROWS=min(16, next_power_of_2(row_block)),
                    BLOCK=JOIN_TILE,
                    HOW=how,
                    SOFTMAX=self.is_softmax,
                )
        return values, counts

    def start_parts(self, parts, counts, low, high, sub, how, options):
        """What each of the rows from `low` to before `high` gives for every `sub` keys."""
        heads, rows, _ = parts.shape
        keys = cdiv(self.k.shape[2], self.stride)
        row_tiles = cdiv(rows, options["ROWS"])
        key_tiles = cdiv(keys, options["BLOCK"])
        edges = (self.q_offset, self.q.shape[2], self.k.shape[2])
        with current(self.q.device):
            self.kernels["parts"][(row_tiles * key_tiles, heads)](
                self.q,
                self.k,
                parts,
                counts,
                *self.q.stride(),
                *self.k.stride(),
                self.k.shape[2],
                self.q.shape[2],
                self.q_offset,
                self.first + low,
                rows,
                keys,
                self.factor,
                *self.params,
                **{**self.options, **options},
                HOW=how,
                SOFTMAX=self.is_softmax,
                STRIDE=self.stride,
                RESIDUE=self.residue,
                RAGGED=any(edge % self.stride for edge in edges),
                SUB=sub,
            )


def fitting_parts(tensor):
    """Tiles, stages and warps of `parts_of_map` that shared memory has room for."""
    rows, keys, stages, warps = PART_ROWS, PART_TILE, PART_STAGES, PART_WARPS
    depth = min(PART_DEPTH, padded(tensor.shape[3]))
    room = shared_memory(tensor.device)
    # Products of float32 keep the tiles that they read a second time.
    again = 1 if tensor.element_size() == 4 else 0
    while (stages + again) * (rows + keys) * depth * tensor.element_size() > room:
        if stages > 2:
            stages -= 1
        else:
            depth //= 2
    tile = {"ROWS": rows, "BLOCK": keys, "DEPTH": depth}
    return {**tile, "num_stages": stages, "num_warps": warps}


def fitting(tensor, rows, keys, stages=2):
    """Tiles and stages whose rows of Q and K, and products, fit into shared memory.

    Products of float32 keep the tiles that they read a second time.
    """
    column = padded(tensor.shape[3]) * tensor.element_size()
    room = shared_memory(tensor.device)
    again = 1 if tensor.element_size() == 4 else 0
    while keys > 16:
        tiles = (stages + again) * (rows + keys) * column
        if tiles + 4 * rows * keys <= room:
            break
        if stages > 1:
            stages -= 1
        else:
            rows, keys = max(16, rows // 2), keys // 2
    return {"ROWS": rows, "BLOCK": keys, "num_stages": stages}


@functools.cache
def shared_memory(device):
    """Bytes that a thread block can have; without end in the interpreter."""
    if device.type != "cuda":
        return math.inf
    found = torch.cuda.get_device_properties(device)
    plain = found.shared_memory_per_block
    return max(plain, getattr(found, "shared_memory_per_block_optin", plain))


def pool(tensor, how, size, offset):
    """Blocks of `size` positions of a [B, heads, n, D] tensor, joined; float32.

    Position `offset` is the first row's. [B, heads, blocks, D], from the first
    row's block on.
    """
    batch, heads, n_rows, dim = tensor.shape
    first = offset // size
    blocks = (offset + n_rows - 1) // size - first + 1
    values = tensor.new_empty((batch, heads, blocks, dim), dtype=torch.float32)
    if values.numel():
        with current(tensor.device):
            pool_kernel[(blocks, batch * heads)](
                tensor,
                values,
                *tensor.stride(),
                n_rows,
                offset,
                first,
                size,
                HEADS=heads,
                HEAD_DIM=dim,
                BLOCK_D=padded(dim),
                ROWS=min(64, next_power_of_2(size)),
                HOW=how,
                ALIGNED=access_of(tensor) != "any",
                num_warps=4,
            )
    return values


def rows_of_blocks(tensor, size, offset):
    """How many rows each block of `pool` has, int32 [blocks]."""
    n_rows = tensor.shape[2]
    first, last = offset // size, (offset + n_rows - 1) // size
    edges = torch.arange(first, last + 2, device=tensor.device) * size - offset
    return edges.clamp(0, n_rows).diff().to(torch.int32)


# What a group is to a selection: no pair of the map is in it, it may be chosen, it is.
ABSENT, OPEN, ALWAYS = 0, 1, 2
SHORT_ROW = 8192  # groups that one program holds in its registers
CHOSEN_AT_ONCE = 1024  # groups of a warp
SEGMENT = 4096  # groups of a longer row that one program has, at least
MOST_SEGMENTS = 32  # programs that share a longer row; a power of two
SEGMENT_BLOCK, MASS_BLOCK = 4096, 1024  # groups that such a program has at a time


def choose_top(values, classes, amount, least=None, most=None):
    """The `amount` greatest groups of every row, bool [rows, groups].

    `values` is float32 [rows, groups] and contiguous; NaN is less than every number.
    `classes` is int8 [class_rows, groups], of ABSENT, OPEN and ALWAYS, and repeats over
    the rows. Groups that are ALWAYS come first and count; of equal ones the smaller
    comes first. `amount` is an integer or int32 [rows], and so are `least` and `most`,
    its bounds. Nothing waits for the device.
    """
    amount, least, most = (count_of_rows(values, x) for x in (amount, least, most))
    if values.shape[1] <= SHORT_ROW:
        return choose_in_rows(values, classes, amount, least, most, "count")
    if least is not None:
        amount = torch.maximum(amount, least)
    if most is not None:
        amount = torch.minimum(amount, most)
    return choose_in_segments(values, classes, amount)


def choose_top_p(values, classes, p, keeps_crossing, least=None, most=None):
    """The greatest groups of every row that hold `p` of its mass; see `choose_top`.

    The mass of a group is its value, 0 where that is negative or NaN. A group is
    chosen while those before it hold less than `p`; without `keeps_crossing` while
    they do not hold more with it. `p` is a number or float64 [rows].
    """
    if values.shape[1] > SHORT_ROW:
        count = counts_of_mass(values, classes, p, keeps_crossing)
        return choose_top(values, classes, count, least, most)
    least, most = (count_of_rows(values, x) for x in (least, most))
    if not isinstance(p, torch.Tensor):
        p = values.new_full((len(values),), p, dtype=torch.float64)
    how = "keep" if keeps_crossing else "drop"
    return choose_in_rows(values, classes, p.contiguous(), least, most, how)


def count_of_rows(values, count):
    """int32 [rows] of a number, or of numbers; None stays."""
    if count is None or isinstance(count, torch.Tensor):
        return None if count is None else count.contiguous()
    return values.new_full((len(values),), count, dtype=torch.int32)


def choose_in_rows(values, classes, amounts, leasts, mosts, how):
    """Choose in rows that a program has in its registers; see `choose_kernel`."""
    rows, groups = values.shape
    table = torch.empty_like(values, dtype=torch.bool)
    if rows == 0 or groups == 0:
        return table
    block = max(64, next_power_of_2(groups))
    with current(values.device):
        choose_kernel[(rows,)](
            values,
            classes,
            amounts,
            leasts,
            mosts,
            table.view(torch.int8),
            len(classes),
            groups,
            HOW=how,
            BLOCK=block,
            num_warps=max(1, block // CHOSEN_AT_ONCE),
        )
    return table


def counts_of_mass(values, classes, p, keeps_crossing):
    """How many groups of each row hold `p` of its mass, int32 [rows]; any length."""
    repeated = len(values) // max(1, len(classes))
    kinds = classes.repeat(repeated, 1)
    mass = torch.where(values > 0, values, 0.0)
    total = torch.where(kinds != ABSENT, mass, 0.0).sum(1, dtype=torch.float64)
    always = torch.where(kinds == ALWAYS, mass, 0.0).sum(1, dtype=torch.float64)
    left = p * total - always
    each, rest, above, ties = reach_mass(values, classes, left)
    steps = rest / each.to(torch.float64)
    steps = torch.ceil(steps) if keeps_crossing else torch.floor(steps)
    # A mass without end is reached by its first group.
    steps = torch.where(each == math.inf, 1.0, steps)
    within = torch.minimum(torch.nan_to_num(steps, 0.0).clamp(min=0.0), ties.double())
    count = torch.where(left > 0, above + within.to(torch.int32), 0)
    if not keeps_crossing:
        # What has no mass adds nothing where all that has some is in.
        is_open = kinds == OPEN
        is_all = count == (is_open & (mass > 0)).sum(1, dtype=torch.int32)
        is_all = (left >= 0) & is_all | (p * total == math.inf)
        count = torch.where(is_all, is_open.sum(1, dtype=torch.int32), count)
    return count + (kinds == ALWAYS).sum(1, dtype=torch.int32)


def reach_mass(values, classes, left):
    """The values at which the mass `left`, float64 [rows], of open groups is reached.

    With it what is left for groups of that value, and how many groups are above it
    and have it, all [rows].
    """
    if 0 in values.shape:
        none = left.new_zeros(len(left), dtype=torch.int32)
        return left, left, none, none
    with current(values.device):
        state, grid, sizes, options = search_segments(values, classes, left, True)
        counts = classes.new_empty(*grid, 2, dtype=torch.int32)
        arguments = (values, classes, left, *state, counts, *sizes)
        count_kernel[grid](*arguments, **options)
    _, prefixes, rests = state
    above, ties = counts.sum(1, dtype=torch.int32).unbind(1)
    # Back from `ranked_bits`.
    bits = prefixes[:, -1] ^ -(2**31)
    bits = bits ^ ((bits >> 31) & (2**31 - 1))
    return bits.view(torch.float32), rests[:, -1], above, ties


def choose_in_segments(values, classes, count):
    """The first `count`, int32 [rows], groups of rows that several programs share."""
    table = torch.empty_like(values, dtype=torch.bool)
    if 0 in values.shape:
        return table
    with current(values.device):
        state, grid, sizes, options = search_segments(values, classes, count, False)
        arguments = (values, classes, count, *state, table.view(torch.int8), *sizes)
        mark_kernel[grid](*arguments, **options)
    return table


def search_segments(values, classes, left, of_mass):
    """Search rows that several programs share, digit by digit, one launch for each.

    The state of the search, and the grid, sizes and options of the last launch.
    """
    rows, groups = values.shape
    segment = max(SEGMENT, cdiv(groups, MOST_SEGMENTS))
    segments = cdiv(groups, segment)
    bits = 4 if of_mass else 8
    levels = 32 // bits
    sums = left.new_empty(levels, rows, segments, 1 << bits)
    prefixes = left.new_empty((rows, levels + 1), dtype=torch.int32)
    state = (sums, prefixes, left.new_empty((rows, levels + 1)))
    sizes = (len(classes), groups, segment, segments)
    options = {
        "BITS": bits,
        "SEGMENTS": MOST_SEGMENTS,
        "BLOCK": MASS_BLOCK if of_mass else SEGMENT_BLOCK,
        "num_warps": 8,
    }
    grid = (rows, segments)
    for level in range(levels):
        segment_kernel[grid](
            values,
            classes,
            left,
            *state,
            *sizes,
            level,
            OF_MASS=of_mass,
            **options,
        )
    return state, grid, sizes, options

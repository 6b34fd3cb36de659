"""What a package says of itself.

In: nothing. Out: the dataclasses of the manifest; making one checks its bounds. Not its
job: bytes (`format`), JSON (`codec`), what the numbers do (`host`, `launch`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .choosing import ChoosingFacts
from .data import (
    InputFacts,
    ListedCover,
    PairRead,
    PlanFacts,
    RowCase,
    ScoreReads,
    StripeFacts,
)
from .format import Section
from .formula import check
from .tiles import ELEMENTS, LARGEST, HeadGroup, Lists

MOST_SHARED = 1 << 20


READ_NO_TOKENS = (
    "mark_diagonals_kernel",
    "live_places_kernel",
    "stripe_tiles_kernel",
    "tile_words_kernel",
    "mark_columns_kernel",
    "list_blocks_kernel",
    "part_sums_kernel",
    "join_kernel",
    "choose_kernel",
    "segment_kernel",
    "mark_kernel",
    "count_kernel",
)
"""Kernels without an argument whose elements are of the call's dtype: one for all."""


@dataclass(frozen=True, slots=True)
class Tile:
    """What a tensor map of a descriptor is encoded from, beside the tensor.

    `block` is the box of one load in elements, `swizzle` and `element_type` are the
    driver's numbers (CUtensorMapSwizzle, CUtensorMapDataType).
    """

    block: tuple[int, ...]
    swizzle: int
    element_type: int

    def __post_init__(self) -> None:
        check(1 <= len(self.block) <= 5, "a tile of no axis, or of more than five")
        check(all(1 <= x <= 256 for x in self.block), "a tile wider than 256")
        check(0 <= self.swizzle <= 16, "no swizzle")
        check(0 <= self.element_type <= 64, "no element type")


@dataclass(frozen=True, slots=True)
class Argument:
    """What a kernel takes in one place.

    `kind` is "pointer" (to elements of type `element`; on 16 bytes if `aligned`),
    "descriptor" (a tensor map of `tile`, then the tensor's sizes as int32 and strides
    as int64), a number's type "i32", "i64" or "fp32", or "nothing": None was compiled
    in, and nothing is passed.
    """

    name: str
    kind: str
    element: str
    aligned: bool
    tile: Tile | None

    def __post_init__(self) -> None:
        kinds = ("pointer", "descriptor", "i32", "i64", "fp32", "nothing")
        check(self.kind in kinds, f"an argument of kind {self.kind!r}")
        has_element = self.kind in ("pointer", "descriptor")
        check(not has_element or self.element in ELEMENTS, "no element type")
        is_tile = self.tile is not None
        check(is_tile == (self.kind == "descriptor"), "a tile without descriptor")


@dataclass(frozen=True, slots=True)
class Usage:
    """What the machine code of a kernel uses.

    `registers` for each thread; `spills` in bytes (on AMD in registers); `serialised`
    holds the assembler's warnings that asynchronous products wait for one another.
    `counts` are of instructions in the code: "wgmma", "mma" and "mfma" products, "tma"
    loads of tiles, "wide" loads of 16 bytes, "narrow" ones of single 16-bit elements.
    """

    registers: int
    spills: int
    serialised: tuple[str, ...]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Variant:
    """One compiled kernel.

    `kernel` is its name in the program, `dtype` that of queries, keys and values ("" if
    it reads none of them), and `constants` what was compiled in. `warps` are
    those that the launcher asks for, `threads` those of a block. `shared` is in bytes. `code` and `ptx` number blobs: machine code of `target`, and PTX for devices
    that come later, if there is any.
    """

    kernel: str
    target: str
    dtype: str
    entry: str
    constants: Mapping[str, bool | int | float | str | None]
    arguments: tuple[Argument, ...]
    warps: int
    threads: int
    stages: int
    shared: int
    code: int
    ptx: int | None
    usage: Usage

    def __post_init__(self) -> None:
        check(self.kernel.isidentifier(), "a kernel without a name")
        check(0 < len(self.entry) < 256, "a kernel without a name")
        check(self.dtype in ELEMENTS or not self.dtype, "no dtype")
        check(1 <= self.threads <= 1024, "no number of threads")
        check(0 <= self.shared <= MOST_SHARED, "more shared memory than a device has")
        check(len(self.arguments) <= 256, "more arguments than a kernel takes")
        check(self.code >= 0 and (self.ptx or 0) >= 0, "no number of a blob")


@dataclass(frozen=True, slots=True)
class Stages:
    """Tiles in flight in the kernel for sm_90, for one head size."""

    columns: int
    stages: int

    def __post_init__(self) -> None:
        check(1 <= self.columns <= 2**16, "no head size")
        check(1 <= self.stages <= 64, "no number of stages")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the launcher has to know of an attention: constants of a generated module.

    `launches` are (kernel, columns, bytes of an element, warps, stages); `whole_only`
    says why there may be no sequences, "" if there may be. `packs` and `shares` say
    whether heads share a tile of few queries, and programs a query tile.
    `hopper_blocks` are the tiles of the kernel for sm_90, if there is one, and
    `hopper_stages` the head sizes that it is for. `hides` says whether tiles may hold
    hidden pairs, for the forward loops and the reverse ones. `list_tensors`, those
    turned round, and `list_numbers` count what a kernel takes of its lists. `tables`
    are the inputs that kernels read; `stripes` are chosen diagonals, columns and blocks,
    `listed` the heads whose tiles follow `list_inputs`, `lists_chosen` whether what a
    selection chose is among these. `sinks` and `outputs` are what
    becomes of rows that are whole.
    """

    name: str
    heads: int
    kv_heads: int
    params: Mapping[str, int | None]
    block_q: int
    block_k: int
    hopper_blocks: tuple[int, ...] | None
    hopper_stages: tuple[Stages, ...]
    largest_dim: int
    delta_rows: int
    launches: tuple[Launch, ...]
    layout_size: int | None
    is_ordered: bool
    packs: bool
    shares: bool
    hides: bool
    hides_reversed: bool
    whole_only: str
    whole_only_reversed: str
    has_lse: bool
    groups: tuple[HeadGroup, ...]
    list_tensors: int
    turned_tensors: int
    list_numbers: int
    lists: tuple[Lists, ...]
    inputs: tuple[InputFacts, ...]
    tables: tuple[str, ...]
    stripes: StripeFacts | None
    reads: ScoreReads | None
    pairs: tuple[PairRead, ...]
    list_inputs: tuple[str, ...]
    listed: tuple[ListedCover, ...]
    lists_chosen: bool
    plan: PlanFacts | None
    sinks: tuple[RowCase, ...]
    outputs: tuple[RowCase, ...]

    def __post_init__(self) -> None:
        check(self.name.isidentifier(), "an attention without a name")
        check(1 <= self.kv_heads <= self.heads <= 2**16, "no number of heads")
        check(self.heads % self.kv_heads == 0, "heads that cannot share keys evenly")
        hopper = (1, 1) if self.hopper_blocks is None else self.hopper_blocks
        check(len(hopper) == 2, "tiles of Hopper's kernel that are none")
        for block in (self.block_q, self.block_k, self.delta_rows, *hopper):
            check(1 <= block <= 2**16, "no size of a tile")
        check(1 <= self.largest_dim <= 2**16, "no head size")
        check(all(x.isidentifier() for x in self.params), "a parameter without a name")
        values = [x for x in self.params.values() if x is not None]
        check(all(abs(x) <= LARGEST for x in values), "a parameter beyond 2**30")
        check(0 <= self.list_tensors <= 6, "no number of lists")
        check(0 <= self.turned_tensors <= 6, "no number of lists")
        check(0 <= self.list_numbers <= 1, "no number of lists")
        names = [item.name for item in self.inputs]
        check(len(set(names)) == len(names), "two inputs of one name")
        check(set(self.tables) <= set(names), "a table that is no input")
        self._check_plan(set(names))

    @property
    def changes_rows(self) -> bool:
        """Whether something is done with rows that are whole."""
        return bool(self.sinks or self.outputs)

    @property
    def reads_own_value(self) -> bool:
        """Whether an output reads the row of `v` at its query."""
        return any("own" in case.value.tokens for case in self.outputs)

    def _check_plan(self, names: set[str]) -> None:
        """What a plan makes is what kernels read."""
        made = {x.name for x in self.inputs if not x.is_given}
        found = () if self.plan is None else self.plan.selections
        check(made == {x.table for x in found}, "a table that no one makes")
        firsts = {name for x in found for name in x.firsts if name}
        check(firsts <= self.params.keys(), "a place that is no parameter")
        check(set(self.list_inputs) <= names, "a list that follows no input")
        for cover in self.listed:
            check(max(cover.heads) < self.heads, "no head")
            tables = {x.table for x in cover.judge.tables}
            tables |= {x.table for x in cover.judge.cells}
            is_followed = tables <= set(self.list_inputs)
            check(is_followed, "a list that follows no input")
        for read in () if self.reads is None else self.reads.reads:
            check(read.table in names, "an element of no input")
            check(max(read.heads) < self.heads, "no head")
        for pair in self.pairs:
            check(pair.table in names, "an element of no input")
            check(max(pair.heads) < self.heads, "no head")
            sides = (self.block_q, self.block_k)
            fits = zip(pair.sums, sides, strict=False)
            check(all(side % x == 0 for x, side in fits), "sums that fill no tile")
        for case in (*self.sinks, *self.outputs):
            check(max(case.heads) < self.heads, "no head")
        own = set(self.params) | ({} if self.plan is None else self.plan.params).keys()
        check(not own & names, "a parameter and an input of one name")


@dataclass(frozen=True, slots=True)
class Launch:
    """Warps and stages of one kernel, for a width of tiles and a size of elements."""

    work: str
    columns: int
    itemsize: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class Expected:
    """The time that a kernel is predicted to take, from times that were measured.

    For one batch element of `length` queries and keys with elements of 16 bits; `work`
    is "forward", or the gradients of "query" or "key".
    """

    work: str
    head_dim: int
    device: str
    length: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Source:
    """The program that a package was built from: the file's name alone, and its text."""

    file: str
    entry: str
    text: str
    sha256: str
    values: Mapping[str, int | float]


@dataclass(frozen=True, slots=True)
class Alternative:
    """What is run where choosing keys does not pay: another program, and who decides."""

    choosing: ChoosingFacts
    expected: tuple[Expected, ...]
    facts: Facts
    variants: tuple[Variant, ...]

    def __post_init__(self) -> None:
        check(self.facts.plan is None, "a dense program that chooses")
        cases = (*self.choosing.cases, *self.choosing.dense)
        check(all(x.head < self.facts.heads for x in cases), "no head")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole of it. `compilers` are versions by name; `blobs` in order of the file.

    `alternative` is there if calls may be computed without choosing.
    """

    patternc: str
    compilers: Mapping[str, str]
    source: Source
    targets: tuple[str, ...]
    dtypes: tuple[str, ...]
    head_dims: tuple[int, ...]
    backward: bool
    expected: tuple[Expected, ...]
    facts: Facts
    variants: tuple[Variant, ...]
    alternative: Alternative | None
    blobs: tuple[Section, ...]

    def __post_init__(self) -> None:
        other = self.alternative
        if other is not None:
            check(self.facts.plan is not None, "a choice between programs that is none")
            own = (self.facts.name, self.facts.heads, self.facts.kv_heads)
            its = (other.facts.name, other.facts.heads, other.facts.kv_heads)
            check(own == its, "two programs of different names or heads")
        for variant in self.all_variants:
            check(variant.code < len(self.blobs), "a kernel without code")
            check((variant.ptx or 0) < len(self.blobs), "a kernel without code")
            check(variant.target in self.targets, "a kernel of an unknown target")
        stored = (*self.facts.lists, *(() if other is None else other.facts.lists))
        for lists in stored:
            for array in (*lists.forward, *lists.turned):
                check(array.blob < len(self.blobs), "an array without numbers")
                check(array.size == self.blobs[array.blob].size, "an absurd array")
        check(all(dtype in ELEMENTS for dtype in self.dtypes), "no dtype")

    @property
    def all_variants(self) -> tuple[Variant, ...]:
        """Those of both programs."""
        other = self.alternative
        return (*self.variants, *(() if other is None else other.variants))

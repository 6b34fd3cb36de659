"""Kernels of a package, launched as those of a generated module are.

In: a package, and `kernel[grid](*arguments, **options)`. Out: the variant that was
compiled for these options, loaded once for each device, launched on torch's current
stream. Not its job: which launches a call needs (`host`).
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .choice import Choice, choose
from .driver import Driver
from .format import PackageError
from .manifest import Variant
from .package import Package
from .packing import Packer

_WORDS = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}

_NOT_COMPARED = ("num_stages", "enable_fp_fusion")
"""Options that name no variant: the build took what fits."""


class OutOfResources(Exception):
    """A block needs more shared memory than the device has."""


class TensorDescriptor:
    """A tensor that a kernel reads by tiles: `base`, and what it is seen as."""

    __slots__ = ("base", "block_shape", "layout", "padding", "shape", "strides")


def cdiv(x: int, y: int) -> int:
    """`x` over `y`, rounded up."""
    return -(-x // y)


def next_power_of_2(x: int) -> int:
    """The least power of two that is not below `x`; 1 for 0."""
    return 1 << max(0, x - 1).bit_length()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A variant on one device."""

    function: int
    threads: int
    shared: int
    packer: Packer


class Code:
    """The code of one package, on every device of this process."""

    def __init__(self, package: Package, driver: Driver) -> None:
        self.package, self.driver = package, driver
        self._lock = threading.Lock()
        self._choices: dict[int, Choice] = {}
        self._loaded: dict[tuple[int, int], Loaded] = {}

    def choice(self, device: int) -> Choice:
        """What a device runs; says so once if its driver has to assemble PTX."""
        found = self._choices.get(device)
        if found is not None:
            return found
        variants = self.package.manifest.variants
        code = {variant.target for variant in variants}
        ptx = {variant.target for variant in variants if variant.ptx is not None}
        own = self.driver.architecture(device)
        found = choose(code, ptx, own)
        with self._lock:
            is_new = device not in self._choices
            self._choices[device] = found
        if found.is_ptx and is_new:
            name = self.package.manifest.facts.name
            warnings.warn(
                f"{name}: the package has no code for {own}; the driver assembles its PTX"
                f" of {found.target}, which takes a while at first and is slower:"
                f" build it with --target {own}",
                stacklevel=2,
            )
        return found

    def load(self, number: int, device: int) -> Loaded:
        """A variant by its number, on the current device, which is `device`."""
        key = (number, device)
        found = self._loaded.get(key)
        if found is not None:
            return found
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = self._load(number, device)
            return self._loaded[key]

    def _load(self, number: int, device: int) -> Loaded:
        variant, choice = self.package.manifest.variants[number], self._choices[device]
        most = self.driver.most_shared(device)
        if variant.shared > most:
            raise OutOfResources(
                f"{variant.kernel} needs {variant.shared} bytes of shared memory, and"
                f" {self.driver.architecture(device)} has {most}"
            )
        if choice.is_ptx:
            if variant.ptx is None:
                raise PackageError(f"the package has no PTX of {variant.kernel}")
            code = self.package.blob(variant.ptx) + b"\0"
        else:
            code = self.package.blob(variant.code)
        module = self.driver.load(code)
        function = self.driver.function(module, variant.entry, variant.shared)
        packer = Packer(variant, self.driver.encode)
        return Loaded(function, variant.threads, variant.shared, packer)


class Kernel:
    """One kernel of a program: `kernel[(programs,)](*arguments, **options)`."""

    def __init__(self, name: str, code: Code) -> None:
        self.__name__ = name
        self._code = code
        self._found: dict[tuple[object, ...], Loaded] = {}
        own = [
            (number, variant)
            for number, variant in enumerate(code.package.manifest.variants)
            if variant.kernel == name
        ]
        self._own = own
        self._telling = _telling([variant for _, variant in own])
        self._optional = _optional([variant for _, variant in own])

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        """What launches so many programs, along up to three axes."""

        def launch(*arguments: Any, **options: Any) -> None:
            self._run(grid, arguments, options)

        return launch

    def _run(
        self, grid: tuple[int, ...], arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        driver = self._code.driver
        device = driver.device()
        dtype = None
        if self._telling is not None:
            tensor = arguments[self._telling]
            dtype = getattr(tensor, "base", tensor).dtype
        absent = tuple(arguments[at] is None for at in self._optional)
        key = (device, dtype, absent, *options.values())
        loaded = self._found.get(key)
        if loaded is None:
            number = self._number(device, dtype, absent, options)
            loaded = self._found[key] = self._code.load(number, device)
        buffer = loaded.packer.pack(arguments)
        driver.launch(
            loaded.function,
            grid,
            loaded.threads,
            loaded.shared,
            driver.stream(device),
            buffer.address,
        )
        loaded.packer.free(buffer)

    def _number(
        self,
        device: int,
        dtype: torch.dtype | None,
        absent: tuple[bool, ...],
        options: dict[str, Any],
    ) -> int:
        """The number of the variant that was compiled for these options."""
        target = self._code.choice(device).target
        word = "" if dtype is None else _WORDS.get(dtype)
        wanted = {x: y for x, y in options.items() if x not in _NOT_COMPARED}
        warps = wanted.pop("num_warps", None)
        for number, variant in self._own:
            is_of_device = variant.target == target and variant.dtype == word
            has_warps = warps is None or warps == variant.warps
            if is_of_device and has_warps and wanted == variant.constants:
                kinds = (variant.arguments[at].kind for at in self._optional)
                if tuple(kind == "nothing" for kind in kinds) == absent:
                    return number
        told = ", ".join(f"{name}={value}" for name, value in wanted.items())
        raise PackageError(
            f"the package has no {self.__name__} of {target}"
            f"{' and ' + str(word) if word != '' else ''} for {told}"
        )


def _telling(variants: list[Variant]) -> int | None:
    """The first argument whose elements are of the call's dtype, whatever that is.

    None for a kernel that has no such argument.
    """
    if variants and not any(variant.dtype for variant in variants):
        return None
    for at, arguments in enumerate(zip(*(x.arguments for x in variants), strict=False)):
        pairs = zip(arguments, variants, strict=True)
        if all(argument.element == variant.dtype for argument, variant in pairs):
            return at
    return 0


def _optional(variants: list[Variant]) -> tuple[int, ...]:
    """The arguments by which variants of the same constants differ: there, or not."""
    found: set[int] = set()
    for one in variants:
        for other in variants:
            alike = (one.target, one.dtype) == (other.target, other.dtype)
            if alike and one.constants == other.constants:
                pairs = zip(one.arguments, other.arguments, strict=True)
                kinds = [[x.kind == "nothing" for x in pair] for pair in pairs]
                found |= {at for at, (x, y) in enumerate(kinds) if x != y}
    return tuple(sorted(found))

"""What all targets share of a compilation: a kernel's first form, made once.

In: a kernel, types and constants, a folder. Out: a source for Triton's compiler. Not its
job: which targets there are, anything that comes after (`machine_code`).

Python takes a kernel's text apart for about an eighth of the time that machine code
takes, and what it makes of it, Triton's IR before any pass, has nothing of a target in it
but for calls of a target's own library. So it is written down, and read again for the
next target that is given the same folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

_OF_A_TARGET = ("tt.extern_elementwise", "tt.elementwise_inline_asm")
"""Operations that say what a target's library or assembler is to do."""


class SharedSource(ASTSource):  # type: ignore[misc]
    """A kernel for Triton's compiler; its IR is taken from `folder` if it is there."""

    def __init__(
        self,
        kernel: Any,
        types: dict[str, str],
        constants: dict[Any, Any],
        attributes: dict[Any, Any],
        folder: Path,
    ) -> None:
        super().__init__(kernel, types, constants, attributes)
        self.folder = folder

    def make_ir(
        self,
        target: GPUTarget,
        options: Any,
        codegen_fns: Any,
        module_map: Any,
        context: Any,
    ) -> Any:
        """The module before any pass."""
        # A hash of the kernel's text and all it calls, of types and constants.
        path = self.folder / f"{self.hash()}.ttir"
        if path.exists():
            module = ir.parse_mlir_module(str(path), context)
            module.context = context
            return module
        module = super().make_ir(target, options, codegen_fns, module_map, context)
        text = str(module)
        if not any(name in text for name in _OF_A_TARGET):
            path.write_text(text)
        return module

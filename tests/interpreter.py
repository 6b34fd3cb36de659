"""Triton's interpreter, with the same results in a fraction of the time.

In: nothing. Out: for this process, Triton 3.6's interpreter without the work that it
does anew for every operation. Not its job: choosing the interpreter
(`patternc.settings`), any numerics.

As it comes, it prints the type of every intermediate block, makes its table of NumPy's
types at each load and cast, looks through the whole language for functions to replace
at every call of a function, and computes integers a second time in 64 bits to look for
an overflow, but then drops what it found. Here an overflow of 32 bits or fewer is an
error.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from patternc.settings import interpret_triton

Change = tuple[object, str, object]
"""An attribute of the language and what the interpreter sets it to."""


@functools.cache
def interpret() -> None:
    """Choose the interpreter for the whole process, and make it quick.

    Only before triton is first imported. Raises `AttributeError` where Triton's own
    names have changed.
    """
    interpret_triton()
    import triton.language as tl
    from triton.language.semantic import TritonSemantic
    from triton.runtime import interpreter

    _keep_types(tl, interpreter)
    _keep_changes(tl, interpreter)
    _keep_code(interpreter)
    _check_overflow(TritonSemantic)
    _leave_equal_shapes(TritonSemantic, interpreter)


def _check_overflow(semantic: Any) -> None:
    """Sums, differences and products of integers that do not fit are errors.

    But for negations: those of words of bits are meant to wrap.
    """
    exact = {"add": np.add, "sub": np.subtract, "mul": np.multiply}

    def check(self: Any, lhs: Any, rhs: Any, binary_op: Callable[..., Any]) -> None:
        held = lhs.type.scalar
        if held.int_bitwidth >= 64:
            return
        own, other = (x.handle.data.astype(np.int64) for x in (lhs, rhs))
        if binary_op.__name__ == "sub" and not own.any():
            return  # `word & -word` is the lowest bit of a word, also of the last one
        found = exact[binary_op.__name__](own, other)
        least, most = held.get_int_min_value(), held.get_int_max_value()
        if found.size and not (least <= found.min() and found.max() <= most):
            raise OverflowError(f"{binary_op.__name__}: no {held} holds the result")

    assert hasattr(semantic, "binary_op_sanitize_overflow_impl")
    semantic.binary_op_sanitize_overflow_impl = check


def _leave_equal_shapes(semantic: Any, interpreter: Any) -> None:
    """Two blocks of one shape are not made as large as each other."""
    plain, handle_of = semantic.broadcast_impl_value, interpreter.TensorHandle

    def alike(self: Any, lhs: Any, rhs: Any) -> Any:
        types = lhs.type, rhs.type
        if not all(held.is_block() for held in types):
            return plain(self, lhs, rhs)
        if types[0].shape.values != types[1].shape.values:
            return plain(self, lhs, rhs)
        # Handles of their own: a shift changes the element type of those that it gets.
        return tuple(
            self.tensor(handle_of(x.handle.data, x.handle.dtype), x.type)
            for x in (lhs, rhs)
        )

    semantic.broadcast_impl_value = alike


def _keep_types(tl: Any, interpreter: Any) -> None:
    """Types of blocks, shapes of tensors and NumPy's types are made once each."""

    plain_block = tl.block_type.__init__
    # By the name of a block's elements and its sizes: what `plain_block` sets, then the
    # shape and the number of elements as its tensors have them.
    blocks: dict[tuple[str, tuple[int, ...]], tuple[Any, ...]] = {}

    def new_block(self: Any, element_ty: Any, shape: Sequence[Any]) -> None:
        key = element_ty.name, tuple([getattr(size, "value", size) for size in shape])
        if key not in blocks:
            plain_block(self, element_ty, shape)
            sizes = tl.core.tuple([tl.constexpr(size) for size in self.shape])
            own = self.name, self.numel, self.shape
            blocks[key] = *own, sizes, tl.constexpr(self.numel)
        self.element_ty = element_ty
        self.name, self.numel, self.shape, *self.of_tensors = blocks[key]

    none = tl.core.tuple([]), tl.constexpr(1)

    def new_tensor(self: Any, handle: object, type: Any) -> None:
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.shape, self.numel = type.of_tensors if type.is_block() else none

    plain_dtype, kinds = interpreter._get_np_dtype, {}

    def numpy_type(held: Any) -> Any:
        if held.name not in kinds:
            kinds[held.name] = plain_dtype(held)
        return kinds[held.name]

    tl.tensor.__init__ = new_tensor
    tl.block_type.__init__ = new_block
    interpreter._get_np_dtype = numpy_type


def _keep_changes(tl: Any, interpreter: Any) -> None:
    """What of the language is replaced while a kernel runs is looked up once."""
    plain = interpreter._patch_lang
    scope_of = interpreter._LangPatchScope

    @functools.cache
    def changes(lang: ModuleType) -> tuple[Change, ...]:
        seeing = FunctionType((lambda: None).__code__, {"lang": lang})
        scope = plain(seeing)
        found = []
        for owner, name, _ in scope._changes:
            now = vars(owner)[name]
            member = (getattr(now, "__kwdefaults__", None) or {}).get("member")
            if member is not None:  # a function of the language, with its semantics
                plain_one = getattr(member, "__wrapped__", member)
                now = _with_semantic(plain_one, interpreter)
            found.append((owner, name, now))
        scope.restore()
        return tuple(found)

    @functools.cache
    def langs_of(function: Any) -> tuple[ModuleType, ...]:
        seen = [x for x in function.__globals__.values() if inspect.ismodule(x)]
        return tuple(lang for lang in (tl, tl.core) if lang in seen)

    for lang in (tl, tl.core):
        changes(lang)

    def patch(function: Any) -> Any:
        scope = scope_of()
        for lang in langs_of(function):
            if tl.core.is_builtin(lang.load):  # else a function of one that runs
                for change in changes(lang):
                    scope.set_attr(*change)
        return scope

    interpreter._patch_lang = patch


def _with_semantic(function: Callable[..., Any], interpreter: Any) -> Any:
    """A function of the language that a kernel calls."""
    semantic = interpreter.interpreter_semantic

    def call(*arguments: Any, **named: Any) -> Any:
        named["_semantic"] = semantic
        return function(*arguments, **named)

    return call


def _keep_code(interpreter: Any) -> None:
    """A function's text is rewritten once, however many modules hold it.

    Of the interpreter's own names a module sees only the one that is written into it.
    """
    codes: dict[tuple[str, int], CodeType] = {}

    def rewrite(self: Any) -> Any:
        lines, first = inspect.getsourcelines(self.fn)
        at = next(i for i, line in enumerate(lines) if line.startswith("def "))
        key = "".join(lines[at:]), first + at
        if key not in codes:
            tree = self.ast_transformer.visit(ast.parse("\n" * (key[1] - 1) + key[0]))
            ast.fix_missing_locations(tree)
            codes[key] = compile(tree, self.fn.__code__.co_filename, "exec")
        seen, made = self.fn.__globals__, dict(self.kwargs)
        seen.setdefault("interpreter_semantic", interpreter.interpreter_semantic)
        exec(codes[key], seen, made)  # noqa: S102, as the interpreter does
        return made[self.fn.__name__]

    assert hasattr(interpreter.FunctionRewriter, "rewrite_ast")
    interpreter.FunctionRewriter.rewrite_ast = rewrite

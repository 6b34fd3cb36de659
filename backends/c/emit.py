"""C files of a package: one to compile, its header, its code as numbers, a sample.

In: a package. Out: the text of each file by its name, the same for the same package. Not
its job: compiling kernels (`backends.triton.build`), writing files.

What the C code does for a call is what `patternc.runtime` does, from the same manifest:
the same kernels with the same arguments. It never copies tensors and allocates nothing;
what the runtime would have to copy, it refuses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from patternc.backends.c.formulas import (
    functions_of,
    mask_text,
    steps_lines,
)
from patternc.backends.c.tables import images_of, tables
from patternc.backends.template import fill
from patternc.diagnostics import Diagnostic, PatternError
from patternc.ir.nodes import Attention
from patternc.runtime.manifest import Manifest
from patternc.runtime.package import Package
from patternc.source import Span
from patternc.version import VERSION

_HERE = __name__.rpartition(".")[0]

PARTS = ("driver", "tables", "handle", "launch", "call", "forward", "backward")
_STATUSES = (
    "OK",
    "NULL_POINTER",
    "BAD_SIZE",
    "BAD_DTYPE",
    "BAD_HEAD_DIM",
    "BAD_STRIDE",
    "UNALIGNED",
    "BAD_OFFSET",
    "BAD_SCALE",
    "BAD_PARAMETER",
    "BAD_SEQUENCES",
    "NO_LSE",
    "NO_GRADIENTS",
    "TOO_LARGE",
    "SMALL_WORKSPACE",
    "NO_DRIVER",
    "BAD_DEVICE",
    "NO_CODE",
    "NO_ROOM",
    "NO_MEMORY",
    "DRIVER_ERROR",
)

SAMPLE_ROWS = 300
"""Queries and keys of the sample, where no layout has a length of its own."""

_ALLOWED = {"bf16": "1.0 / 128", "fp16": "1.0 / 1024", "fp32": "1e-5"}


def c_refusal(
    attention: Attention, targets: Collection[str], backward: bool
) -> Diagnostic | None:
    """What has no C form; None if all has."""
    others = [x for x in targets if not x.startswith("sm_")]
    if others:
        return _refusal(
            f"the C form calls NVIDIA's driver, which has no {', '.join(others)}",
            attention.span,
            "built for other GPUs too",
            "leave them out of --target, or build a package",
        )
    if attention.selections:
        return _refusal(
            "the C form has no selections",
            attention.selections[0].span,
            "a plan needs PyTorch's operations between its kernels",
            "build a package",
        )
    if attention.inputs:
        item = attention.inputs[0]
        return _refusal(
            f"the C form has no inputs, and this program reads `{item.name}`",
            item.span,
            "it is declared here",
            "build a package",
        )
    spans = [case.span for case in attention.sinks]
    spans += [case.span for case in attention.outputs]
    if spans:
        return _refusal(
            "the C form has no `sink` and `output` clauses",
            spans[0],
            "its launches do not say whether rows are finished",
            "build a package",
        )
    if backward and attention.orders and attention.heads != attention.kv_heads:
        return _refusal(
            "the C form has no gradients of ordered heads that share keys and values",
            attention.orders[0].span,
            "PyTorch adds up the gradients of these heads",
            "build it without --backward, or build a package",
        )
    return None


def _refusal(message: str, span: Span, label: str, advice: str) -> Diagnostic:
    return Diagnostic("unsupported", message, span, label, advice)


def emit_c(package: Package, attention: Attention) -> Mapping[str, str]:
    """The text of each file. `attention` is the package's own program.

    Raises `PatternError` for what `c_refusal` refuses.
    """
    manifest = package.manifest
    refusal = c_refusal(attention, manifest.targets, manifest.backward)
    if refusal is not None:
        raise PatternError([refusal])
    images = images_of(package)
    names = _names(manifest)
    names |= tables(package, images) | _calls(manifest)
    prefix = names["p"]
    code = f'#include "{prefix}_code.h"'
    parts = [fill(_HERE, f"{part}.c", {**names, "code": code}) for part in PARTS]
    numbers = [
        f"/* Machine code of {prefix}.c and its tile lists, 8 bytes a word. */\n"
    ]
    numbers += [image.text() for image in images]
    return {
        f"{prefix}.h": fill(_HERE, "attention.h", names),
        f"{prefix}.c": "\n".join(parts),
        f"{prefix}_code.h": "\n".join(numbers),
        "sample.c": _sample(manifest, attention, names),
    }


def _names(manifest: Manifest) -> dict[str, str]:
    facts, source = manifest.facts, manifest.source
    gradients = ", with gradients" if manifest.backward else ""
    return {
        "p": facts.name,
        "P": facts.name.upper(),
        "name": facts.name,
        "version": VERSION,
        "file": source.file.replace("*/", ""),
        "hash": source.sha256,
        "heads": str(facts.heads),
        "kv_heads": str(facts.kv_heads),
        "targets": ", ".join(manifest.targets),
        "dtypes": ", ".join(manifest.dtypes),
        "dims": ", ".join(map(str, manifest.head_dims)),
        "with_gradients": gradients,
    }


def _calls(manifest: Manifest) -> dict[str, str]:
    """What depends on run-time parameters and on the tiles' formulas."""
    facts, prefix = manifest.facts, manifest.facts.name
    fields, defaults, puts, checks = [], [], [], []
    for name, default in facts.params.items():
        told = "to be set" if default is None else f"{default} unless set"
        fields.append(f"  int64_t p_{name}; /* run-time parameter {name}: {told} */")
        value = "INT64_MIN" if default is None else str(default)
        defaults.append(f"  call->p_{name} = {value};")
        puts.append(f"  put_number(to, call->p_{name});")
        checks.append(f"  if (call->p_{name} < -LIMIT || call->p_{name} > LIMIT)")
        checks.append(f"    return {prefix.upper()}_BAD_PARAMETER;")
    steps = "\n".join(steps_lines(facts))
    cases = [
        f'  case {prefix.upper()}_{word}:\n    return "{prefix.upper()}_{word}";'
        for word in _STATUSES
    ]
    return {
        "param_fields": "\n".join(fields),
        "param_defaults": "\n".join(defaults),
        "put_params": "\n".join(puts),
        "check_params": "\n".join(checks),
        "steps": steps,
        "formula_functions": functions_of(steps),
        "status_cases": "\n".join(cases),
    }


def _sample(manifest: Manifest, attention: Attention, names: dict[str, str]) -> str:
    facts, dtype = manifest.facts, manifest.dtypes[0]
    prefix = facts.name
    free = [name for name, value in facts.params.items() if value is None]
    texts = {
        **names,
        "dtype": dtype,
        "DTYPE": dtype.upper(),
        "sample_rows": str(facts.layout_size or SAMPLE_ROWS),
        "sample_dim": str(manifest.head_dims[0]),
        "sample_bytes": "4" if dtype == "fp32" else "2",
        "store": _STORE[dtype],
        "fetch": _FETCH[dtype],
        "allowed": _ALLOWED[dtype],
        "sample_params": "\n".join(f"  call.p_{name} = 1;" for name in free),
        "sample_lse": "",
        "fetch_lse": "",
        "visible": "",
        "compare": f'  printf("{prefix} has run; the sample knows no plain form\\n");',
    }
    if facts.has_lse:
        texts["sample_lse"] = "  call.lse = (void *)(uintptr_t)room(sizeof(lse));"
        copy = 'check_driver(to_host(lse, (uintptr_t)call.lse, sizeof(lse)), "cuMemcpyDtoH");'
        texts["fetch_lse"] = f"  {copy}"
    masks = _masks(attention)
    if masks is None or not facts.has_lse:
        return fill(_HERE, "sample.c", texts)
    texts["mask_cases"] = masks
    text = fill(_HERE, "sample.c", {**texts, "compare": "  wrong = compare(&call);"})
    plain = functions_of(masks, floor=True) + fill(_HERE, "plain.c", texts)
    return text.replace("int main(", f"{plain}\nint main(")


def _masks(attention: Attention) -> str | None:
    """Cases of a C switch; None if the definition is more than masks."""
    rest = (attention.scores, attention.weights, attention.sinks, attention.outputs)
    if any(rest):
        return None
    lines = []
    for case in attention.cases:
        text = mask_text(case.mask)
        if text is None:
            return None
        lines += [f"  case {head}:" for head in case.heads]
        lines.append(f"    return {text};")
    return "\n".join(lines)


_STORE = {
    "bf16": """\
  uint32_t bits;
  memcpy(&bits, &x, 4);
  to[0] = bits >> 16 & 255;
  to[1] = bits >> 24;""",
    "fp16": """\
  int exponent;
  float part = frexpf(x < 0 ? -x : x, &exponent); /* 0, or from 1/2 to 1 */
  unsigned bits = x < 0 ? 0x8000u : 0u;
  if (part > 0)
    bits |= (unsigned)(exponent + 14) << 10 | ((unsigned)ldexpf(part, 11) & 1023);
  to[0] = bits & 255;
  to[1] = (unsigned char)(bits >> 8);""",
    "fp32": "  memcpy(to, &x, 4);",
}

_FETCH = {
    "bf16": """\
  uint32_t bits = (uint32_t)from[0] << 16 | (uint32_t)from[1] << 24;
  float x;
  memcpy(&x, &bits, 4);
  return x;""",
    "fp16": """\
  unsigned bits = from[0] | (unsigned)from[1] << 8, part = bits & 1023;
  int exponent = (int)(bits >> 10 & 31);
  float x = exponent == 31 ? (part ? NAN : INFINITY)
            : exponent == 0 ? ldexpf((float)part, -24)
                            : ldexpf((float)(part + 1024), exponent - 25);
  return bits >> 15 ? -x : x;""",
    "fp32": """\
  float x;
  memcpy(&x, from, 4);
  return x;""",
}

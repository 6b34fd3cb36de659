"""The C files as text: the same for the same package, refused programs, the sample."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from patternc.backends.c.emit import c_refusal, emit_c
from patternc.backends.c.formulas import c_text, functions_of
from patternc.backends.c.tables import images_of, keys
from patternc.backends.reference import ReferenceBackend
from patternc.diagnostics import PatternError
from patternc.driver import compile_source
from patternc.runtime.formula import Formula
from patternc.runtime.steps import evaluate as evaluated
from patternc.source import Source
from tests.backends.c.libraries import (
    BUILT,
    COMPILER,
    STRICT,
    compiled,
    wanted_of,
    written,
)
from tests.runtime.packages import PROGRAMS, kernel_of, quick_package

SINK = "attention a { heads 2 mask causal sink 0.5 }"

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler here")


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_kernel_is_found_by_its_own_key(name: str) -> None:
    found = keys(quick_package(name, wanted_of(name)).manifest)
    assert len(found) == len(set(found))


def test_the_same_text_twice() -> None:
    package, attention = quick_package("duo"), kernel_of("duo").attention
    texts = emit_c(package, attention)
    assert texts == emit_c(package, attention)
    assert sorted(texts) == ["duo.c", "duo.h", "duo_code.h", "sample.c"]
    for text in texts.values():
        assert "@" not in text and not any(
            line != line.rstrip() for line in text.splitlines()
        )


def test_code_is_in_the_words() -> None:
    package = quick_package("full")
    for at, image in enumerate(images_of(package)):
        text = image.text()
        words = text[text.index("{") + 1 : text.index("}")].replace("\n", "").split(",")
        content = b"".join(int(x, 16).to_bytes(8, "little") for x in words if x.strip())
        blob = package.blob(at)
        assert content.startswith(blob)
        assert content[len(blob) :].strip(b"\0") == b"" and len(content) > len(blob)


def test_refused_with_the_place() -> None:
    attention = kernel_of("ordered").attention
    refusal = c_refusal(attention, ("sm_90",), True)
    assert refusal is not None and "ordered heads" in refusal.message
    assert refusal.span == attention.orders[0].span
    assert c_refusal(attention, ("sm_90",), False) is None
    refusal = c_refusal(attention, ("sm_90", "gfx942"), False)
    assert refusal is not None and "gfx942" in refusal.message
    attention = kernel_of("vertical_slash").attention
    refusal = c_refusal(attention, ("sm_90",), False)
    assert refusal is not None and "no selections" in refusal.message
    assert refusal.span == attention.selections[0].span
    attention = kernel_of("slopes").attention
    refusal = c_refusal(attention, ("sm_90",), False)
    assert refusal is not None and "reads `slope`" in refusal.message
    assert refusal.span == attention.inputs[0].span
    attention = compile_source(Source("a.pat", SINK)).attention
    refusal = c_refusal(attention, ("sm_90",), False)
    assert refusal is not None and "no `sink` and `output`" in refusal.message
    assert refusal.span == attention.sinks[0].span
    with pytest.raises(PatternError):
        emit_c(quick_package("ordered", BUILT), attention)


@needs_compiler
def test_formulas_are_those_of_the_runtime(tmp_path: Path) -> None:
    tokens: list[tuple[int | str, ...]] = [
        ("qt", "p_w", "//", 3, "%"),
        ("qt", "p_w", "-", "abs", "n_k", "min", -4, "max"),
        ("qt", 0, "<", "p_w", 2, ">=", "and", "n_k", 9, "!=", "or", "not"),
        ("qt", "p_w", "%", 2**40, "*", -(2**35), "+"),
    ]
    names = {"qt": "qt", "n_k": "n_k"}
    texts = [c_text(Formula(x), names) for x in tokens]
    prints = "".join(f'printf("%lld\\n", (long long)({x}));\n' for x in texts)
    values = [(-7, 3, 5), (9, -2, 8), (0, 1, 9), (-1, -5, 100)]
    rows = ", ".join(f"{{{', '.join(map(str, row))}}}" for row in values)
    source = f"""#include <stdint.h>
#include <stdio.h>
{functions_of(" ".join(texts), floor=True)}
struct params {{ int64_t p_w; }};
int main(void) {{
  static const int64_t rows[][3] = {{{rows}}};
  for (int at = 0; at < {len(values)}; at++) {{
    int64_t qt = rows[at][0], n_k = rows[at][2];
    struct params own = {{rows[at][1]}}, *call = &own;
    {prints}
  }}
}}"""
    (tmp_path / "formulas.c").write_text(source)
    assert COMPILER is not None
    path = tmp_path / "formulas"
    command = [COMPILER, *STRICT, str(tmp_path / "formulas.c"), "-o", str(path)]
    subprocess.run(command, check=True)
    done = subprocess.run([path], capture_output=True, text=True, check=True)
    expected = [
        evaluated(Formula(x), {"qt": qt, "p_w": w, "n_k": n_k})
        for qt, w, n_k in values
        for x in tokens
    ]
    assert list(map(int, done.stdout.split())) == expected


@needs_compiler
@pytest.mark.parametrize("name", ["duo", "by_head", "layout", "softcap"])
def test_the_sample_tells_right_from_wrong(name: str, folder: Path) -> None:
    """Over a stub, which computes nothing but hands out results that a file holds."""
    facts = quick_package(name, wanted_of(name)).manifest.facts
    sample, numbers = _sample(name, folder), folder / f"{name}.numbers"
    done = subprocess.run(
        [sample, numbers], capture_output=True, text=True, check=False
    )
    assert f"{facts.name} runs on sm_90" in done.stdout, done.stderr
    rows, heads, kv_heads = facts.layout_size or 300, facts.heads, facts.kv_heads
    content = numbers.read_bytes()
    sizes = [64 * rows * 2 * count for count in (heads, kv_heads, kv_heads, heads)]
    assert len(content) == sum(sizes) + 4 * rows * heads
    given, start = [], 0
    for size in sizes[:3]:
        own = bytearray(content[start : start + size])
        given.append(torch.frombuffer(own, dtype=torch.float16).view(1, -1, rows, 64))
        start += size
    q = given[0]
    assert q.abs().max() <= 1 and len(set(q.flatten().tolist())) > 100
    if kernel_of(name).attention.scores:
        assert done.returncode == 0 and "knows no plain form" in done.stdout
        return
    assert done.returncode == 1 and "WRONG" in done.stdout
    loaded = ReferenceBackend().load(kernel_of(name))
    rest: dict[str, Any] = {"scale": 0.125, "q_offset": 0, "params": {}}
    found = loaded(*(x.double() for x in given), return_lse=True, **rest)
    out, lse = found[0].half().numpy().tobytes(), found[1].float().numpy().tobytes()
    assert _with_results(sample, folder, out + lse).returncode == 0
    spoiled = bytearray(out)
    spoiled[-1] ^= 0x20
    assert _with_results(sample, folder, bytes(spoiled) + lse).returncode == 1
    moved = (found[1] + 0.01).float().numpy().tobytes()
    assert _with_results(sample, folder, out + moved).returncode == 1


def _with_results(
    sample: Path, folder: Path, results: bytes
) -> subprocess.CompletedProcess[str]:
    path = folder / "results"
    path.write_bytes(results)
    environment = {**os.environ, "STUB_RESULTS": str(path)}
    return subprocess.run(
        [sample], env=environment, capture_output=True, text=True, check=False
    )


def _sample(name: str, folder: Path) -> Path:
    """The sample over a stub that takes any code."""
    own = written(name, folder)
    facts = quick_package(name, wanted_of(name)).manifest.facts
    driver = folder / "libanything.so"
    stub = str(Path(__file__).with_name("stub.c"))
    compiled([stub], driver, "-shared", "-fPIC", "-DANY_CODE")
    sources = [str(own / "sample.c"), str(own / f"{facts.name}.c")]
    define = f'-DPATTERNC_CUDA_DRIVER="{driver}"'
    compiled(sources, own / "sample", "-O1", define)
    return own / "sample"


@needs_compiler
def test_the_sample_without_a_driver(folder: Path, tmp_path: Path) -> None:
    own = written("full", folder)
    sources = [str(own / "sample.c"), str(own / "everything.c")]
    define = '-DPATTERNC_CUDA_DRIVER="no_such_driver.so"'
    compiled(sources, tmp_path / "sample", define)
    done = subprocess.run([tmp_path / "sample"], capture_output=True, check=False)
    assert done.returncode == 77 and b"no CUDA driver here" in done.stderr

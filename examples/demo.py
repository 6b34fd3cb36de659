"""The main job: three published patterns on what a real language model computes.

In: the programs in examples/smollm2/ and the queries, keys and values of two layers of
SmolLM2-135M reading 2,048 tokens of English (examples/data/PROVENANCE.md). Out: for
every head the density, the tiles visited and the share of the model's own attention
that the pattern keeps; the error against the dense reference beside its budget; the
time against dense attention; kernel modules and pictures in build/demo/; what choices
at run time keep (recall.py). Runs without a GPU. Not its job: speed on a GPU
(`make gpu-test`, docs/performance.md).
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import patternc
from patternc import driver
from patternc.backends.triton.emit import emit
from patternc.cli.files import write_whole
from patternc.picture import grid_png, overlay
from patternc.plan.expand import TileCount, count_tiles
from patternc.plan.kernel import Kernel
from patternc.progress import progress
from patternc.syntax.load import read_source

HERE = Path(__file__).parent
OUT = HERE.parent / "build" / "demo"
LAYERS = ("layer2", "layer25")
PROGRAMS = (
    ("phi3_small.pat", "phi3_small"),
    ("duo.pat", "duo"),
    ("a_shape.pat", "a_shape"),
    ("fitted.pat", "phi3_small_2k"),
    ("fitted.pat", "a_shape_2k"),
)
SLICE = 160
"""Tokens that the kernel module runs on in Triton's interpreter, which is slow."""


Call = tuple[Tensor, Tensor, Tensor]
Run = Callable[[Tensor, Tensor, Tensor], object]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the model: q [1, 9, N, 64], k and v [1, 3, N, 64], all float32."""

    name: str
    q: Tensor
    k: Tensor
    v: Tensor


@dataclass(frozen=True, slots=True)
class Program:
    """One compiled attention; `mask` is bool [heads, N, N]."""

    path: Path
    entry: str
    kernel: Kernel
    attention: patternc.Attention
    mask: Tensor
    tiles: tuple[TileCount, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The largest error of an output against float64, and what is allowed."""

    error: float
    budget: float

    @property
    def holds(self) -> bool:
        """Whether the error is within its budget; NaN is not."""
        return self.error <= self.budget


def main() -> int:
    """Run everything; 1 if a verification fails."""
    # Triton reads this when it is imported; where there is no GPU, it interprets.
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"
    OUT.mkdir(parents=True, exist_ok=True)
    tensors = load_file(HERE / "data" / "smollm2_qkv.safetensors")
    layers = [
        Layer(name, *(tensors[f"{name}.{part}"].float() for part in "qkv"))
        for name in LAYERS
    ]
    n = layers[0].q.shape[2]
    print(
        f"SmolLM2-135M, {len(layers)} layers, {n} tokens, {torch.get_num_threads()}"
        " threads"
    )
    with progress("attention of the model itself"):
        weights = {layer.name: true_weights(layer) for layer in layers}
        golden = {layer.name: double(layer) for layer in layers}
    passed = [run_program(*program, layers, golden, weights) for program in PROGRAMS]
    passed.append(run_module(layers[0]))
    load_module(HERE / "recall.py").main()
    print("\nall within budget" if all(passed) else "\nFAILED: an error over budget")
    return 0 if all(passed) else 1


def run_program(
    file: str,
    entry: str,
    layers: list[Layer],
    golden: dict[str, Layer],
    weights: dict[str, Tensor],
) -> bool:
    """Compile, run, verify, tabulate and draw one program."""
    program = compile_program(HERE / "smollm2" / file, entry, layers[0].q.shape[2])
    kept = {}
    holds = True
    for layer in layers:
        call = layer.q, layer.k, layer.v
        with progress(f"{entry} on {layer.name}"):
            verdict = verify(program.attention, layer, golden[layer.name])
            kept[layer.name] = kept_mass(program.mask, weights[layer.name])
            tiled, dense = race(program.attention, dense_causal, call)
        sign = "ok" if verdict.holds else "FAILED"
        print(
            f"  {layer.name:<8} error {verdict.error:.1e} of {verdict.budget:.1e} {sign};"
            f" tiled {tiled:.0f} ms, dense causal SDPA {dense:.0f} ms"
            f" ({dense / tiled:.2f}x)"
        )
        holds = holds and verdict.holds
    print_heads(program, kept)
    with progress(f"picture of {entry}"):
        draw(program, weights[LAYERS[-1]], OUT / f"{entry}.png")
    return holds


def compile_program(path: Path, entry: str, n: int) -> Program:
    """From the file to a callable; the kernel module goes to build/demo/."""
    began = time.perf_counter()
    source = read_source(path)
    trace = driver.trace_source(source, entry)
    text = emit(trace.kernel, source.text, entry)
    took = 1e3 * (time.perf_counter() - began)
    write_whole(OUT / f"{entry}.py", text.encode())
    heads = range(trace.attention.heads)
    tiles = tuple(count_tiles(trace.kernel, head, n, n) for head in heads)
    attention = patternc.load(path, entry=entry, backend="tiled")
    proved = sum(decision.holds is True for decision in trace.decisions)
    print(
        f"\n{entry}: compiled in {took:.0f} ms, {proved} of {len(trace.decisions)}"
        f" asserts proved, {len(trace.kernel.covers)} head groups"
    )
    return Program(path, entry, trace.kernel, attention, attention.mask(n, n), tiles)


def true_weights(layer: Layer) -> Tensor:
    """The model's own causal attention, float32 [heads, N, N]."""
    keys = layer.k.repeat_interleave(layer.q.shape[1] // layer.k.shape[1], dim=1)
    scores = (layer.q @ keys.mT)[0] * layer.q.shape[-1] ** -0.5
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    weights: Tensor = scores.masked_fill_(hidden, -torch.inf).softmax(dim=-1)
    return weights


def double(layer: Layer) -> Layer:
    """The same layer in float64, in which rounding can be neglected."""
    return Layer(layer.name, layer.q.double(), layer.k.double(), layer.v.double())


def verify(attention: patternc.Attention, layer: Layer, golden: Layer) -> Verdict:
    """The tiled output against the dense reference in float64.

    The budget is what the dense reference itself loses in float32, ten times, as in
    `patternc verify`.
    """
    reference = attention.backend("reference")
    exact = output(reference(golden.q, golden.k, golden.v))
    plain = output(reference(layer.q, layer.k, layer.v))
    got = output(attention(layer.q, layer.k, layer.v))
    loss = float((plain.double() - exact).abs().mean())
    return Verdict(float((got.double() - exact).abs().mean()), 10 * loss)


def kept_mass(mask: Tensor, weights: Tensor) -> list[float]:
    """The share of each head's attention that falls on visible pairs."""
    rows = weights.shape[1]
    return [
        float((weights[head] * mask[head]).sum()) / rows for head in range(len(mask))
    ]


def dense_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's own causal attention."""
    dense: Tensor = scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True
    )
    return dense


def race(first: Run, second: Run, call: Call, rounds: int = 3) -> tuple[float, float]:
    """The median milliseconds of two ways, taken in turn, after one round to warm up."""
    times: dict[Run, list[float]] = {first: [], second: []}
    for _ in range(rounds + 1):
        for way, taken in times.items():
            began = time.perf_counter()
            way(*call)
            taken.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times[first][1:]), statistics.median(times[second][1:])


def print_heads(program: Program, kept: dict[str, list[float]]) -> None:
    """One line a head: density, tiles visited, share of the attention kept."""
    titles = "".join(f"  kept, {name:<8}" for name in kept)
    print(f"  head  density  tiles visited{titles}")
    for head, tiles in enumerate(program.tiles):
        density = float(program.mask[head].float().mean())
        shares = "".join(f"  {100 * share[head]:>12.1f} %" for share in kept.values())
        print(
            f"  {head:>4}  {density:>7.4f}  {tiles.visited:>6} / {tiles.total}{shares}"
        )


def draw(program: Program, weights: Tensor, path: Path) -> None:
    """The mask of every head over the real attention map, three heads to a row."""
    pictures = [
        overlay(mask.numpy(), attention.double().numpy(), 256)
        for mask, attention in zip(program.mask, weights, strict=True)
    ]
    write_whole(path, grid_png(pictures, 3))
    print(f"  kernel module {shown(path.with_suffix('.py'))}, picture {shown(path)}")


def shown(path: Path) -> str:
    """A path as seen from where the demo was started."""
    return os.path.relpath(path)


def run_module(layer: Layer) -> bool:
    """Run a compiled kernel module on the first tokens, against its own reference."""
    path = OUT / "duo.py"
    module = load_module(path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    q, k, v = (x[:, :, :SLICE].half().to(device) for x in (layer.q, layer.k, layer.v))
    with progress("kernel module"):
        got = output(module.forward(q, k, v)).double()
    wide = [x.double() for x in (q, k, v)]
    exact = output(module.reference(*wide))
    # Half precision keeps 11 bits: the weights and the output are each rounded once.
    allowed = 2 * float(exact.abs().max()) * 2.0**-10
    verdict = Verdict(float((got - exact).abs().max()), allowed)
    where = "on the GPU" if device == "cuda" else "in Triton's interpreter"
    print(
        f"\n{shown(path)}, {where}, {SLICE} tokens, float16:"
        f" error {verdict.error:.1e} of {verdict.budget:.1e}"
        f" {'ok' if verdict.holds else 'FAILED'}"
    )
    return verdict.holds


def load_module(path: Path) -> ModuleType:
    """Import a compiled kernel module from its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # Triton looks up the source of its kernels
    spec.loader.exec_module(module)
    return module


def output(result: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """The output of a call that was not asked for the LSE."""
    if not isinstance(result, Tensor):
        raise TypeError("expected one tensor")
    return result


if __name__ == "__main__":
    sys.exit(main())

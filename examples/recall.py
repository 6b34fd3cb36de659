"""How much of a real model's attention a choice of keys keeps, against its density.

In: the queries and keys of two layers of SmolLM2-135M (examples/data/PROVENANCE.md),
and four standard patterns: the fixed A-shape, and three that choose keys from the data.
Out: a table, a plot in the terminal, and build/demo/recall.svg. Not its job: speed.

Recall is the share of the full causal softmax that falls on visible pairs, as a mean
over rows and heads; density is the share of visible pairs among all n x n pairs, of
which the causal half is 0.5. One query head of each key/value head is looked at.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

import patternc
from patternc import stdlib_patterns
from patternc.cli.files import write_whole
from patternc.progress import progress

HERE = Path(__file__).parent
OUT = HERE.parent / "build" / "demo"
STANDARD = Path(stdlib_patterns.__file__).parent
HEADS = (1, 4, 7)
LAYERS = ("layer2", "layer25")
COLOURS = {
    "A-shape": "#777777",
    "vertical-slash": "#1f4e79",
    "FlexPrefill": "#d64523",
    "XAttention": "#2c8a4b",
}
MARKS = {"A-shape": "a", "vertical-slash": "v", "FlexPrefill": "f", "XAttention": "x"}
WIDTH, HEIGHT = 64, 16
DENSITIES = (0.01, 0.5)
"""The ends of the horizontal axis, which is logarithmic."""


@dataclass(frozen=True, slots=True)
class Point:
    """One selector with one budget on one layer."""

    layer: str
    selector: str
    budget: str
    density: float
    recall: float


@dataclass(frozen=True, slots=True)
class Budget:
    """A standard file, the values of its parameters, and what the table calls it."""

    selector: str
    title: str
    file: str
    values: Mapping[str, Any]


def budgets() -> Iterable[Budget]:
    """From the sparsest to the densest of each selector; blocks of 64."""
    for columns, slashes in ((32, 64), (64, 128), (128, 256), (256, 512)):
        values: dict[str, Any] = {"columns": columns, "slashes": slashes, "near": 30}
        title = f"{columns} + {slashes}"
        yield Budget("vertical-slash", title, "vertical_slash", values)
    for gamma in (0.6, 0.8, 0.9):
        values = {"gamma": gamma, "least": 64, "block": 64, "unit": 64}
        yield Budget("FlexPrefill", f"gamma {gamma}", "flexprefill", values)
    for p in (0.5, 0.7, 0.9):
        yield Budget("XAttention", f"p {p}", "xattention", {"p": p, "block": 64})


def a_shape(n: int) -> Iterable[tuple[str, Tensor]]:
    """Masks of the A-shape, with names."""
    apart = torch.arange(n)[:, None] - torch.arange(n)
    for sink, window in ((4, 64), (16, 128), (64, 256), (64, 512)):
        near = (apart < window) | (torch.arange(n) < sink)
        yield f"{sink} + {window}", (apart >= 0) & near


def measure(
    layers: Mapping[str, tuple[Tensor, Tensor]],
) -> tuple[Point, ...]:
    """Every selector with every budget on layers of q [1, H, n, D] and k alike."""
    found = []
    for layer, (q, k) in layers.items():
        weights = attention_of(q, k)
        n = q.shape[2]
        for title, mask in a_shape(n):
            found.append(point(layer, "A-shape", title, mask[None], weights))
        for budget in budgets():
            program = patternc.load(
                STANDARD / f"{budget.file}.pat",
                entry=budget.file,
                count=q.shape[1],
                kv_count=q.shape[1],
                **budget.values,
            )
            mask = program.mask(n, n, plan=program.plan(q, k))[0]
            found.append(point(layer, budget.selector, budget.title, mask, weights))
    return tuple(found)


def attention_of(q: Tensor, k: Tensor) -> Tensor:
    """The full causal attention [H, n, n] of q and k, [1, H, n, D] both."""
    logits = (q @ k.mT)[0] * q.shape[-1] ** -0.5
    hidden = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
    weights: Tensor = logits.masked_fill_(hidden, -torch.inf).softmax(dim=-1)
    return weights


def point(
    layer: str, selector: str, budget: str, mask: Tensor, weights: Tensor
) -> Point:
    """What the masks [H or 1, n, n] of a selector keep."""
    recall = float((weights * mask).sum() / weights.shape[:2].numel())
    return Point(layer, selector, budget, float(mask.float().mean()), recall)


def table(points: Sequence[Point]) -> str:
    """One line a point."""
    lines = [f"  {'layer':<8} {'selector':<15} {'budget':<11} density   recall"]
    for at in points:
        lines.append(
            f"  {at.layer:<8} {at.selector:<15} {at.budget:<11} {at.density:>7.4f}"
            f"  {100 * at.recall:>5.1f} %"
        )
    return "\n".join(lines)


def along(density: float) -> float:
    """Where a density is on the horizontal axis, from 0 to 1."""
    low, high = map(math.log, DENSITIES)
    return min(max((math.log(density) - low) / (high - low), 0.0), 1.0)


def floor_of(points: Sequence[Point]) -> float:
    """The lower end of the vertical axis: a tenth below the least recall."""
    return math.floor(10 * min(at.recall for at in points)) / 10


def terminal_plot(points: Sequence[Point]) -> str:
    """Recall upwards, density to the right; a letter for each selector."""
    low = floor_of(points)
    cells = [[" "] * WIDTH for _ in range(HEIGHT)]
    for at in points:
        row = round((HEIGHT - 1) * (1 - at.recall) / (1 - low))
        cells[row][round((WIDTH - 1) * along(at.density))] = MARKS[at.selector]
    lines = []
    for row, line in enumerate(cells):
        height = 1 - (1 - low) * row / (HEIGHT - 1)
        label = f"{100 * height:>5.0f} %" if row % 5 == 0 else " " * 7
        lines.append(f"  {label} │{''.join(line)}")
    lines.append(f"{' ' * 10}└{'─' * WIDTH}")
    ends = f"{DENSITIES[0]:g}".ljust(WIDTH - 3) + f"{DENSITIES[1]:g}"
    lines.append(f"{' ' * 11}{ends}  density, all causal pairs at the right")
    names = ", ".join(f"{mark} {name}" for name, mark in MARKS.items())
    return "\n".join([*lines, f"{' ' * 11}{names}"])


def svg(points: Sequence[Point]) -> str:
    """The plot as a drawing, one panel a layer."""
    layers = list(dict.fromkeys(at.layer for at in points))
    low, side, gap = floor_of(points), 320, 70
    width = len(layers) * (side + gap) + gap
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{side + 120}">',
        "<style>text { font: 12px sans-serif }</style>",
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, layer in enumerate(layers):
        left, top = gap + number * (side + gap), 40
        parts.append(f'<text x="{left}" y="{top - 12}">{layer}: recall, density</text>')
        for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
            x = left + side * along(tick)
            parts.append(_line(x, top, x, top + side, "#dddddd"))
            parts.append(f'<text x="{x - 8:.1f}" y="{top + side + 16}">{tick:g}</text>')
        for step in range(6):
            share = low + (1 - low) * step / 5
            y = top + side * (1 - step / 5)
            parts.append(_line(left, y, left + side, y, "#dddddd"))
            label = f"{100 * share:.0f} %"
            parts.append(f'<text x="{left - 42}" y="{y + 4:.1f}">{label}</text>')
        for place, (selector, colour) in enumerate(COLOURS.items()):
            here = [p for p in points if (p.layer, p.selector) == (layer, selector)]
            at = [
                (
                    left + side * along(p.density),
                    top + side * (1 - p.recall) / (1 - low),
                )
                for p in here
            ]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}"'
                ' stroke-width="2"/>'
            )
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
                for x, y in at
            ]
            below = top + side + 36
            parts.append(
                f'<text x="{left + place * 85}" y="{below}" fill="{colour}">'
                f"{selector}</text>"
            )
    return "\n".join([*parts, "</svg>\n"])


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        f' stroke="{colour}"/>'
    )


def main() -> int:
    """Measure, print and draw."""
    tensors = load_file(HERE / "data" / "smollm2_qkv.safetensors")
    layers = {}
    for name in LAYERS:
        # Query head h reads key/value head h // 3.
        keys = tensors[f"{name}.k"][:, [head // 3 for head in HEADS]]
        layers[name] = (tensors[f"{name}.q"][:, list(HEADS)].float(), keys.float())
    with progress("recall of chosen keys"):
        points = measure(layers)
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "recall.svg"
    write_whole(path, svg(points).encode())
    n = layers[LAYERS[0]][0].shape[2]
    print(f"\nchoosing keys at run time, {n} tokens, heads {HEADS}, density of n x n")
    print(table(points))
    for name in LAYERS:
        print(f"\n  {name}")
        print(terminal_plot([at for at in points if at.layer == name]))
    print(f"  drawing {os.path.relpath(path)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

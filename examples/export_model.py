"""A model that uses a pattern, compiled by AOTInductor and run in a new process.

    python examples/export_model.py save build/model.pt2
    python examples/export_model.py run build/model.pt2

In: 03_streaming.pat beside this file. Out: a package of PyTorch, for any batch and length,
then what it gives beside the model itself. Runs without a GPU; AOTInductor needs a C++
compiler when it saves. The file holds a call of `patternc::attention` with the name of a
program, which is a hash of its kernel: the new process loads the same program first.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

import patternc

PATTERN = Path(__file__).with_name("03_streaming.pat")
HEADS, KV_HEADS, DIM = 4, 2, 32


class Layer(torch.nn.Module):
    """Projections around an attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = patternc.load(PATTERN, recent=64)
        self.q = torch.nn.Linear(HEADS * DIM, HEADS * DIM)
        self.kv = torch.nn.Linear(HEADS * DIM, 2 * KV_HEADS * DIM)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, HEADS * DIM] -> the same."""
        q = self.q(x).unflatten(2, (HEADS, DIM)).transpose(1, 2)
        kv = self.kv(x).unflatten(2, (2, KV_HEADS, DIM)).permute(2, 0, 3, 1, 4)
        return self.attn(q, kv[0], kv[1]).transpose(1, 2).flatten(2)


def layer() -> Layer:
    """The same weights in every process."""
    torch.manual_seed(0)
    return Layer().eval()


def save(path: str) -> None:
    """Export for any batch and length, compile, and write."""
    batch, tokens = (torch.export.Dim(name, max=4096) for name in ("batch", "tokens"))
    example = (torch.randn(2, 100, HEADS * DIM),)
    with torch.no_grad():
        program = torch.export.export(
            layer(), example, dynamic_shapes=({0: batch, 1: tokens},)
        )
    torch._inductor.aoti_compile_and_package(program, package_path=path)
    print("saved", path)


def run(path: str) -> None:
    """Load the program, then the file, and compare."""
    patternc.load(PATTERN, recent=64).program()
    compiled = torch._inductor.aoti_load_package(path)
    for batch, tokens in ((3, 77), (2, 300)):
        x = torch.randn(batch, tokens, HEADS * DIM)
        with torch.no_grad():
            found, expected = compiled(x), layer()(x)
        agrees = torch.allclose(found, expected, atol=1e-5)
        print(f"{batch} x {tokens} tokens agree: {agrees}")


if __name__ == "__main__":
    {"save": save, "run": run}[sys.argv[1]](sys.argv[2])

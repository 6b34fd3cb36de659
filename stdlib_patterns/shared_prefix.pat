# shared_prefix(p, length): continuations see a common prefix, and not each other.
#
# Paper: "Hydragen: High-Throughput LLM Inference with Shared Prefixes",
# arXiv 2402.05099
# Picture: --k-len 48 --set p=16 --set length=8
#
# One sequence: p tokens of prefix, then continuations of `length` tokens each.

pattern shared_prefix(p, length) =
    causal & (sink(p) | block_diagonal(length)[q - p, k - p])

attention claims(p = 512, length = 128) {
    heads 1
    mask shared_prefix(p, length)
    assert mask within causal
    assert every q has k
    assert retention <= p + length
}

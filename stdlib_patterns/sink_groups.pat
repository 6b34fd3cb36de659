# sink_groups(group, count, n): shifted groups, and the first n tokens for everybody.
#
# Paper: "SinkLoRA: Enhanced Efficiency and Chat Capabilities for Long-Context Large
# Language Models", arXiv 2406.05678, its sink fixed attention (SF-Attn).
# Picture: --k-len 48 --set group=16 --set n=3 --head 31
#
# The released code has neither sinks nor the paper's reassembly of the shifted half; it
# is LongLoRA's rolled version. This is the paper's set: `shifted_groups` and n sinks.

pattern sink_groups(group, count, n) = shifted_groups(group, count) | causal & sink(n)

attention claims(group = 2048, n = 4) {
    heads 32
    mask sink_groups(group, 32, n)
    assert mask within causal
    assert shifted_groups(group, 32) within mask
    assert every q has k
}

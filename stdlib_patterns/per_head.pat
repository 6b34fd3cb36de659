# per_head: streaming with a sink and a window for each head, from tables.
#
# Paper: "MoA: Mixture of Sparse Attention for Automatic Large Language Model
# Compression", arXiv 2406.14909
# Picture: --k-len 64 --head 2
#
# The tables are what a search found for a layer, one number for each head; one kernel
# serves all layers. Where they are known when a kernel is compiled, write cases:
# `mask streaming(64, 1024) for h in {0, 3}`.

attention per_head {
    heads 32
    input sinks[h] : int
    input recent[h] : int
    mask  causal & (k < sinks[h] | q - k < recent[h])
    assert mask within causal
}

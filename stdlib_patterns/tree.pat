# tree: draft tokens in a tree: each sees the context and its own ancestors.
#
# Paper: "SpecInfer: Accelerating Large Language Model Serving with Tree-based
# Speculative Inference and Verification", arXiv 2305.09781; Medusa, arXiv 2401.10774
# Picture: --k-len 48 --q-len 32 --set nodes=32
#
# The last `nodes` keys are the drafts, and the queries of a call: the default q_offset
# puts them there. ancestor[i, j] says whether draft j is draft i or above it.

attention tree(nodes = 64) {
    heads 1
    input ancestor[nodes, nodes] : bool
    mask  k < N - nodes | ancestor[q - (N - nodes), k - (N - nodes)]
    assert k < N - nodes within mask                       # the context is seen by all
    assert mask within (k < N - nodes | q >= N - nodes)    # drafts only by drafts
}

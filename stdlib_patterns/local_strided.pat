# local_strided(block, local, stride, ...): near blocks, and every stride-th one.
#
# Paper: "S2-Attention: Hardware-Aware Context Sharding Among Attention Heads",
# arXiv 2407.17678; Phi-3-small, arXiv 2404.14219
# Picture: --k-len 64 --set block=2 --set local=4 --set stride=8
#
# In blocks of `block` tokens: the last `local` blocks, and the blocks K with
# (K + h // share * slide + phase) % stride == 0, so that the heads share out the
# context. Implementations disagree on the phase: vLLM's Phi-3-small has slide 1,
# phase 1 and query heads (the defaults here); dkernel has phase 0, slide
# max(1, stride // heads) and, where keys are grouped, `share` query heads to a phase.

pattern local_strided(block, local, stride, slide = 1, phase = 1, share = 1) =
    causal
    & (window(local) | (k + h // share * slide + phase) % stride == 0)[
        q // block, k // block
    ]

attention claims(block = 64, local = 16, stride = 8) {
    heads 32
    mask local_strided(block, local, stride)
    assert union over h == causal          # the heads together see all of the context
    assert mask within causal
    assert every q has k
}

# documents: packed documents that do not see each other; plain, causal, with prefixes.
#
# Paper: "FlashMask: Efficient and Rich Mask Extension of FlashAttention",
# arXiv 2410.01359, its document masks
# Picture: --k-len 64 --entry prefix_documents
#
# The number of its document is an input for each token, as the sequence holds other
# documents in each call. Tokens of one document stand together, so numbers never fall:
# `sorted` says so, and a call can be asked to look. Where a document starts
# with a prefix that all of it sees, `until` is the position after that prefix.

attention documents {
    heads 1
    input doc[k] : int sorted
    mask  doc[q] == doc[k]
    assert every q has k
}

attention causal_documents {
    heads 1
    input doc[k] : int sorted
    mask  causal & doc[q] == doc[k]
    assert mask within causal
    assert every q has k
}

attention prefix_documents {
    heads 1
    input doc[k] : int sorted
    input until[k] : int sorted
    mask  doc[q] == doc[k] & (k <= q | k < until[q])
    assert every q has k
}

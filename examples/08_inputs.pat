# An `input` is a tensor that each call gives. Here documents are packed into one
# sequence: `doc[k]` is the number of a key's document, `doc[q]` that of the query's.
#
#     attn(q, k, v, doc=torch.tensor([0, 0, 0, 1, 1, 2, ...]))

attention packed {
    heads 4 kv 2
    input doc[k] : int sorted                 # sorted: it never falls, so tiles are found by search
    mask  causal & doc[q] == doc[k]
}

# Tables may have any axes: heads, blocks of queries, blocks of keys, sizes.

attention kept_blocks {
    heads 4
    input keep[h, q // 128, k // 128] : bool
    mask  causal & keep[h, q // 128, k // 128]
}

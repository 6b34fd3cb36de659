# vertical_slash(columns, slashes, near, last, ...): the heaviest columns and diagonals.
#
# Paper: "MInference 1.0: Accelerating Pre-filling for Long-Context LLMs via Dynamic
# Sparse Attention", arXiv 2407.02490
# Picture: --k-len 128 --set columns=12 --set slashes=24 --set near=16 --set last=32
# Picture: --set count=2 --set kv_count=1
#
# Their attention is that of the last 64 queries, for each head of a call. The first 30
# columns and the `near` nearest diagonals are always taken and count. Serving code has
# near = 100, the code that searches patterns and the static mode near = 30. A budget
# below 30 or `near` takes just those; the code takes at least 50 diagonals, any of the
# nearest. (1000, 6096) is what heads have that no search was made for; others have (30,
# 800), (100, 750), (500, 700), (3500, 100).
#
# The paper sees the pairs of a chosen diagonal (tile = 1). The published kernels see 64
# keys of it in each tile of 64 queries: all that some query of the tile sees on it
# (tile = 64). Where such runs of keys meet they let the joint run grow by 64 keys at a
# time, up to 63 too many, and a run that would begin before the first key is moved to
# begin there; no rule for a pair says that, so these pairs are not here.

attention vertical_slash(
    columns = 1000, slashes = 6096, near = 100, last = 64, tile = 1,
    count = 32, kv_count = 8
) {
    heads count kv kv_count
    let probe = softmax(scores where causal for q >= max(N - last, 0))
    let verticals = top(min(columns, N), sum(probe by k), always k < 30)
    let heaviest = top(min(slashes, N), sum(probe by q - k), always q - k < near)
    let diagonals = widened(heaviest, tile)
    mask causal & (k in verticals | q // tile * tile - k in diagonals)
    assert mask within causal
}

# vertical_slash(columns, slashes, near, last, ...): the heaviest columns and diagonals.
#
# Paper: "MInference 1.0: Accelerating Pre-filling for Long-Context LLMs via Dynamic
# Sparse Attention", arXiv 2407.02490
# Picture: --k-len 128 --set columns=12 --set slashes=24 --set near=16 --set last=32
# Picture: --set count=2 --set kv_count=1
#
# Their attention is that of the last 64 queries, for each head of a call. The first 30
# columns and the `near` nearest diagonals are always taken and count. Serving code has
# near = 100, the code that searches patterns and the static mode near = 30. The
# published kernels widen a chosen diagonal to 64 keys in each tile of 64 queries; here
# the pairs are exact, as the paper writes them. A budget below 30 or `near` takes just
# those; the code takes at least 50 diagonals, any of the nearest. (1000, 6096) is what
# heads have that no search was made for; others have (30, 800), (100, 750), (500, 700),
# (3500, 100).

attention vertical_slash(
    columns = 1000, slashes = 6096, near = 100, last = 64, count = 32, kv_count = 8
) {
    heads count kv kv_count
    let probe = softmax(scores where causal for q >= max(N - last, 0))
    let verticals = top(min(columns, N), sum(probe by k), always k < 30)
    let diagonals = top(min(slashes, N), sum(probe by q - k), always q - k < near)
    mask causal & (k in verticals | q - k in diagonals)
    assert mask within causal
}

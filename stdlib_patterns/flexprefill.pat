# flexprefill(gamma, tau, least, ...): blocks by mass, or lines, as a test says.
#
# Paper: "FlexPrefill: A Context-Aware Sparse Attention Mechanism for Efficient
# Long-Sequence Inference", arXiv 2502.20766
# Picture: --k-len 128 --set least=16 --set block=8 --set unit=8 --set tau=0.5
# Picture: --set count=2 --set kv_count=1
#
# From the attention of the last `block` queries: where the mean query foretells it well
# (Jensen-Shannon distance below `tau`), a head takes the blocks that hold `gamma` of
# the mass of mean queries on mean keys, over the whole map; if not, the blocks of
# columns and of diagonals that hold `gamma` of the probe. `least` is the fewest tokens
# of a line budget. The paper's examples have gamma from 0.9 to 0.95.
#
# Where code and paper differ: a budget of n tokens is n // 128 + 1 blocks in the code
# whatever the block is (`unit = block` is the paper's); the code leaves out the block
# that crosses gamma (`crossing = 1` takes it, as the paper does); in the code a share
# that is 0 makes the distance NaN and the head a head of lines, here 0 log 0 is 0. Up
# to `least` keys, in whole blocks, all of them are seen by either rule; the code sees
# all of 2 blocks, too, where `least` is less (short = 2; short = 0 is the paper's).

def counted(tokens, block) = (tokens + block - 1) // block

attention flexprefill(
    gamma : float = 0.9, tau : float = 0.1, least = 1024, block = 128, unit = 128,
    crossing = 0, short = 2, count = 32, kv_count = 8
) {
    heads count kv kv_count
    let probe = softmax(scores where causal for q >= max(N - block, 0))
    let vertical = sum(probe by k) / min(block, N)
    let slash = sum(probe by q - k) / min(block, N)
    let wide = top_p(gamma, vertical)
    let deep = top_p(gamma, slash)

    let keys = mean(K by k // block)
    let guessed = softmax(mean(Q for q >= max(N - block, 0)) @ keys * scale)
    let seen = sum(vertical by k // block)
    let entropies = (entropy(guessed) + entropy(seen)) / 2
    let aware = sqrt(max(entropy((guessed + seen) / 2) - entropies, 0)) < tau

    let coarse = softmax(
        mean(Q by q // block) @ keys * scale where k // block <= q // block
    )
    let kept = top_p(gamma, coarse, crossing drop)
    let crossed = top_p(gamma, coarse)

    let few_columns = top(
        min(counted(least, block), counted(N, block)), seen, always k // block == 0
    )
    let few_diagonals = top(
        min(counted(least, block), counted(N, block)),
        sum(slash by (q - k) // block),
        always (q - k) // block == 0
    )
    let columns = top(
        max(count(wide) // unit + 1, counted(least, block)),
        seen,
        always k // block == 0
    )
    let diagonals = top(
        max(count(deep) // unit + 1, counted(least, block)),
        sum(slash by (q - k) // block),
        always (q - k) // block == 0
    )
    mask causal & (N <= short * block | (
        k // block in few_columns | q // block - k // block in few_diagonals
        | ((q // block, k // block) in crossed if crossing == 1
           else (q // block, k // block) in kept)
        if aware
        else k // block in columns | q // block - k // block in diagonals
    ))
    assert mask within causal
}

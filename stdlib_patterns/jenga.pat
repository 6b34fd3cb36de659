# jenga(p, drop, text, ...): blocks of a video by mass, their neighbours, and the text.
#
# Paper: "Training-Free Efficient Video Generation via Dynamic Token Carving",
# arXiv 2505.16864
# Picture: --k-len 144 --set text=16 --set block=8 --set count=1 --set kv_count=1
#
# Tokens of the video come first, in the order of a space-filling curve, a whole number
# of blocks of them; the last `text` tokens are text, which sees and is seen by all.
# Each row of blocks takes the greatest until they have `p` of the mass, the one that
# crosses p included, and at least a part of 1 - drop; `near` says which blocks hold
# neighbours of each other's tokens, and follows from the curve. Base models have p =
# 0.3 and drop = 0.75. The bias of text keys at lower resolutions would be a `score`.

def whole(tokens, block) = tokens // block

attention jenga(
    p : float = 0.3, drop : float = 0.75, text = 256, block = 128,
    count = 24, kv_count = 24
) {
    heads count kv kv_count
    input near[q // block, k // block] : bool
    let coarse = softmax(
        mean(Q by q // block) @ mean(K by k // block) * scale
            where (k // block + 1) * block <= N - text
    )
    let chosen = top_p(
        p, coarse per q // block, min whole(N - text, block) * (1 - drop)
    )
    mask q >= N - text | k >= N - text
        | (q // block, k // block) in chosen | near[q // block, k // block]
}

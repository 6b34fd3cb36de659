# sparsed(prompt, select, block, ...): the heaviest blocks of one step, for all later.
#
# Paper: "SparseD: Sparse Attention for Diffusion Language Models", arXiv 2509.24014
# Picture: --k-len 128 --set prompt=64 --set select=0.2 --set block=8 --set count=2
# Picture: --set kv_count=1
#
# Two choices for each block of queries: among the blocks of the prompt by the attention
# to all keys, and among the generated blocks by the attention to those. `prompt` is a
# number of whole blocks of tokens. The paper chooses once, after a fifth of the steps,
# which are dense: keep `plan = attn.plan(q, k)` of that step and hand it to the later
# ones. Long prompts: select = 0.3 with blocks of 128, short ones: 0.5 with 32. The
# released code scales the logits of one model (LLaDA) by 1 / sqrt(heads) instead of 1 /
# sqrt(D): give the call that `scale` for the same choice.

def counted(tokens, block) = (tokens + block - 1) // block

attention sparsed(
    prompt = 4096, select : float = 0.3, block = 128, count = 32, kv_count = 32
) {
    heads count kv kv_count
    let all = sum(softmax(scores) by q // block, k // block)
    let early = top(select * counted(N, block) + 1, all per q // block)
    let generated = sum(softmax(scores where k >= prompt) by q // block, k // block)
    let late = top(
        select * max(counted(N, block) - prompt // block, 0) + 1,
        generated per q // block
    )
    mask (q // block, k // block) in early & k < prompt
        | (q // block, k // block) in late & k >= prompt
}

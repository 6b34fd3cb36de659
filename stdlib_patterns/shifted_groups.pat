# shifted_groups(group, count): groups, half a group off for the second half of heads.
#
# Paper: "LongLoRA: Efficient Fine-tuning of Long-Context Large Language Models",
# arXiv 2309.12307, its shifted sparse attention (S2-Attn).
# Picture: --k-len 48 --set group=16 --head 31
#
# `count` is the number of heads. LongLoRA's two implementations disagree: the one that
# rolls the tokens lets the first half group see the end of the sequence, which is the
# future. This is its other one (variable lengths): the first and last shifted groups
# are half as long, and nothing leaks, as the first assert proves.

pattern shifted_groups(group, count) = causal & block_diagonal(group)[
    q + 2 * h // count * (group // 2), k + 2 * h // count * (group // 2)
]

attention claims(group = 2048) {
    heads 32
    mask shifted_groups(group, 32)
    assert mask within causal
    assert every q has k
    assert mask == causal & block_diagonal(group) for h < 16
}

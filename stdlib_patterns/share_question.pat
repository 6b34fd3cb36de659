# share_question(document, question, answer): answers see their question and themselves.
#
# Paper: "FlashMask: Efficient and Rich Mask Extension of FlashAttention",
# arXiv 2410.01359, its share-question mask for preference and reward training.
# Picture: --k-len 48 --set document=24 --set question=9 --set answer=5
#
# Documents of `document` tokens, each one question and then answers of `answer` tokens:
# an answer sees the question and itself, causally, and no other answer. The lengths
# are the same for all documents; where they differ, use `documents` with two inputs.

pattern share_question(document, question, answer) =
    causal & block_diagonal(document) & (
        k % document < question
        | block_diagonal(answer)[q % document - question, k % document - question]
    )

attention claims(document = 1024, question = 256, answer = 384) {
    heads 1
    mask share_question(document, question, answer)
    assert mask within causal
    assert mask within block_diagonal(document)
    assert every q has k
}

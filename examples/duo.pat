# DuoAttention: some key/value heads retrieve from the whole context, the others only
# stream: a few first tokens and a window of recent ones.

attention duo(sink = 64, recent = 256) {
    heads 32 kv 8
    mask  causal                    for g in {0, 3, 6}     # g: kv head, h: query head
    mask  streaming(sink, recent)   otherwise
    assert retention <= sink + recent for g in {1}         # keys a streaming head must ever keep
}

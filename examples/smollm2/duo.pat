# ../duo.pat with the heads of SmolLM2-135M (9 query heads, 3 key/value heads): the
# first key/value head retrieves, the other two stream.

attention duo(sink = 64, recent = 256) {
    heads 9 kv 3
    mask  causal                    for g in {0}
    mask  streaming(sink, recent)   otherwise
    assert retention <= sink + recent for g in {1, 2}
}

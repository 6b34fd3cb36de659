# Patterns take parameters and combine with & | ~, which bind weaker than comparisons.
# Comparisons chain, as in mathematics.

pattern local(w) = 0 <= q - k < w

attention sliding_window(w: runtime = 256) {  # runtime: one kernel serves every w
    heads 4 kv 2
    mask  local(w)
    assert mask within causal
}

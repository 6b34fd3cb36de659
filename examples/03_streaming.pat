# StreamingLLM: the first tokens (attention sinks) and a window of recent ones.
# `streaming`, like `causal`, `sink` and `window`, is a standard pattern.

attention sink_and_window(sinks = 4, recent = 256) {
    heads 4 kv 2
    mask  streaming(sinks, recent)
    assert every q has k
    assert retention <= sinks + recent        # keys that a decoder must keep, at any length
}

# The A-shape heads of MInference: sinks and a window, for long prompts.

attention a_shape {
    heads 32
    mask streaming(128, 3968)
    assert density < 0.07 at N = 131072
}

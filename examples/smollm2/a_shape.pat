# ../a_shape.pat with the heads of SmolLM2-135M. Its window is longer than the 2,048
# tokens of the sample, where it is causal attention; fitted.pat has a shorter one.

attention a_shape {
    heads 9 kv 3
    mask streaming(128, 3968)
    assert density < 0.07 at N = 131072
}

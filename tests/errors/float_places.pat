# One attention for each clause with a name that is not there.

attention a {
    heads 8
    mask full
    output o * s                               # E[wrong-place]
    output o * k                               # E[wrong-place]
    sink 0.5 * q                               # E[wrong-place]
    sink s                                     # E[wrong-place]
    sink v                                     # E[wrong-place]
    score v                                    # E[wrong-place]
    weights relu                               # E[bad-weights]
    weights softmax(3)                         # E[bad-weights]
    weights relu2                              # E[bad-weights]
    weights sigmoid(s)                         # E[wrong-place]
    weights sigmoid(q - 1)                     # E[wrong-place]
    weights sigmoid(full)                      # E[type]
}

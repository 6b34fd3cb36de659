# An attention has one schedule block.

attention a {
    heads 1
    mask full
    schedule { block_q = 64 }
    schedule { block_k = 64 }                      # E[duplicate-clause]
}

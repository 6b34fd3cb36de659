# A pattern may depend on the head `h`. Here each head sees every fourth column,
# shifted by one from head to head: together they see everything.

pattern strided(local, vert) = window(local) | (k + h + 1) % vert == 0

attention strided_heads {
    heads 4 kv 4
    mask  causal & strided(64, 4)
    assert union over h == causal
}

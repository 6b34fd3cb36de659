# `def` names an integer function of integers, usable in any pattern.
# Here: an image of 32 columns, where a token sees its neighbourhood.

def row(t) = t // 32
def column(t) = t % 32

pattern near(r) = abs(row(q) - row(k)) <= r & abs(column(q) - column(k)) <= r

attention neighbourhood {
    heads 4
    mask  near(3)
    assert every q has k
}

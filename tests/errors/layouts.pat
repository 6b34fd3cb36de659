# Layouts that cannot be, and names that they do not have.

layout twice = text[3] + text[4]               # E[duplicate-name]
layout shared = a[x = 3] + c[x = 4]            # E[duplicate-name]
layout mixed = video[13, y = 30]               # E[bad-layout]
layout two = video[13, 30]                     # E[bad-layout]
layout none = text[valid = n]                  # E[bad-layout]
layout number = text[4, valid = 3]             # E[bad-layout]
layout counts = text[4, valid = n, valid = n]  # E[bad-layout]
layout whole = all[3]                          # E[reserved-name]
layout good = text[226] + video[f = 13, y = 30, x = 45]
layout padded = text[226, valid = n] + video[wide]    # E[bad-layout] E[unknown-name]

attention a {
    heads 8
    layout godo                                # E[unknown-name]
    mask q.z == 3
}
attention b2 {
    heads 8
    layout good
    layout good                                # E[duplicate-clause]
    mask q.z == 3                              # E[unknown-axis]
        | q in texts                           # E[unknown-segment]
        | q in 3                               # E[type]
        | h.x == 3                             # E[unknown-axis]
        | N.x == 3                             # E[unknown-axis]
}
attention c {
    heads 8
    mask q.x == 3                              # E[unknown-axis]
        | k in text                            # E[unknown-segment]
}
attention d { heads 8 layout padded mask full }
attention e(n: runtime) { heads 8 layout none mask full }      # only the layout is wrong

# Orders that are no permutation, or that name what there is not.

layout scene = text[226] + video[f = 13, y = 30, x = 45]

attention a {
    heads 16
    layout scene
    input label[k] : int
    input score_of[k] : float
    input pair[h, q] : int
    mask full
    order video by axes(f, y, f)   for h == 0  # E[bad-order]
    order video by axes(f, y)      for h == 1  # E[bad-order]
    order video by axes(f, y, z)   for h == 2  # E[unknown-axis]
    order video by axes(f = 3)     for h == 3  # E[bad-order]
    order video by tile(f = 6, y = 8)          for h == 4     # E[bad-order]
    order video by tile(f = 14, y = 8, x = 8)  for h == 5     # E[bad-order]
    order video by tile(f = 0, y = 8, x = 8)   for h == 6     # E[bad-order]
    order video by tile(6, 8, 8)               for h == 7     # E[bad-order]
    order text by axes(f)          for h == 8  # E[bad-order]
    order all by tile(f = 6)       for h == 9  # E[bad-order]
    order all by curve(hilbert)    for h == 10 # E[bad-order]
    order video by curve(peano)    for h == 11 # E[bad-order]
    order audio by phase(4)        for h == 0  # E[unknown-segment]
    order video by phase(0)        for h == 12 # E[bad-order]
    order video by phase(2, 3)     for h == 13 # E[bad-order]
    order video by labels(score_of) for h == 14       # E[bad-order]
    order video by labels(pair)    for h == 15 # E[bad-order]
    order text by labels(lable)    for h == 15 # E[bad-order]
    order text by hilbert(3)       for h == 14 # E[bad-order]
    order text by labels(label)    for h == 13
}
attention plain {
    heads 2
    mask full
    order video by phase(4)        for h == 0  # E[unknown-segment]
    order all by phase(4)          for h == 1
}
attention both {
    heads 2
    layout scene
    mask full
    order all by phase(4)
    order text by phase(4)         for h == 1  # E[case-overlap]
}
attention moving {
    heads 2
    mask full
    order all by phase(N)          for h == 1  # E[not-constant]
}

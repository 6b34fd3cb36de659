# Cases of other clauses than `mask`, over heads, layers and steps.

attention overlaps {
    heads 8
    input slope[h] : float
    mask full
    score 2 * s           for h < 3
    score slope[h] * s    for h >= 2           # E[case-overlap]
    weights sigmoid       for h < 3
    weights relu2(1)                           # E[case-overlap]
    sink 1                for h in {0}
    sink 2                for h in range(0, 8) # E[case-overlap]
    output v              for h == 1
    output 2 * o          for h == 1           # E[case-overlap]
    order all by phase(4)
    order all by phase(2) for h == 7           # E[case-overlap]
}
attention skipped {
    heads 8
    mask full             for h < 4
    mask causal           for h >= 4           # E[case-overlap]
    skip                  for h in {5}
}
attention none {
    heads 8
    mask full
    score 2 * s           for h > 7            # E[no-head]
    skip                  for h > 7            # E[no-head]
}
attention left {
    heads 2
    mask full
    score 2 * s
    score s               otherwise            # E[no-head]
}
attention layers {
    heads 8
    mask full             for layer % 2 == 0
    mask causal           for layer % 3 == 0   # E[case-overlap]
}
attention some_layers {
    heads 8
    mask full             for layer < 5
    mask causal           for layer > 5        # E[case-missing]
}
attention steps {
    heads 8
    mask full
    order all by phase(4) for step < 5         # E[unsupported]
    weights sigmoid       for layer == 0       # E[unsupported]
    sink 1                for layer == 0       # E[unsupported]
    skip                  for layer == 0       # E[unsupported]
}
attention moving {
    heads 8
    mask full             for layer * step == 4
    mask causal           otherwise            # E[unsupported]
}
attention no_sum {
    heads 8
    mask full
    weights relu2(1)      for h < 2
    weights sigmoid       for h == 7
    sink 1                for h in {1, 2}      # E[sink-without-sum]
    sink 2                otherwise            # E[sink-without-sum]
}
attention sum {
    heads 8
    mask full
    weights sigmoid       for h == 7
    weights softmax       for h < 2
    sink where(layer == 0, 1.0, 2.0) for h < 7
}

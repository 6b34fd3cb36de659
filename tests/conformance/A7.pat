# Bottom-right causal, fewer keys than queries: the first rows are empty.
attention A7 { heads 1  mask causal }

# Bottom-right causal, fewer queries than keys.
attention A6 { heads 1  mask causal }

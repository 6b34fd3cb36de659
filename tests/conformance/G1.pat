# attention-gym: sliding window, its end included.
attention G1(w = 100) { heads 1  mask window_inclusive(w) }

# attention-gym: dilated sliding window, both ways.
attention G2(w = 64, d = 4) { heads 1  mask dilated_band(w, d) }

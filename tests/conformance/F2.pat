# FlashMask: causal.
attention F2 { heads 1  mask causal }

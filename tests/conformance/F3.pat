# FlashMask: sliding causal window of 32 keys.
attention F3(w = 32) { heads 1  mask window(w) }

# FlashMask: prefix-LM causal.
attention F10(p = 256) { heads 1  mask prefix_lm(p) }

# FlashMask: global tokens and a sliding band, both ways.
attention F7(n = 16, w = 32) { heads 1  mask longformer(w, n) }

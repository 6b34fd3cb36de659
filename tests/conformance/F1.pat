# FlashMask: full.
attention F1 { heads 1  mask full }

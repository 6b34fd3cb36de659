# Schedule blocks: settings by name, each once, within limits.

attention a { heads 1 mask full
    schedule { block_q = 48 }                      # E[bad-schedule]
}
attention b1 { heads 1 mask full
    schedule { stages = 9, block_k = 8, warps = 3 }  # E[bad-schedule] E[bad-schedule] E[bad-schedule]
}
attention c { heads 1 mask full
    schedule { tile = 64 }                         # E[bad-schedule]
}
attention d { heads 1 mask full
    schedule { warps = 4, warps = 4 }              # E[bad-schedule]
}
attention e { heads 1 mask full
    schedule { 64 }                                # E[bad-schedule]
}
attention f { heads 1 mask full
    schedule { block_q = q }                       # E[not-constant]
}
attention good(w = 32) { heads 1 mask full
    schedule { block_q = 2 * w, block_k = 128, warps = 8, stages = 2, }
}

# Layouts whose sizes cannot be, and what patterns read of them.

layout zero = text[0] + more[-3]               # E[bad-layout] E[bad-layout]
layout large = text[1073741824, valid = n] + more[1]  # E[bad-layout]
layout moving = text[n]                        # E[not-constant]
layout good = text[226] + video[f = 13, y = 30, x = 45]

pattern across = q.f == k.y & q in audio       # E[unknown-segment] E[unknown-axis]
pattern alone = q.f == k.f                     # no layout is known here

attention a { heads 8 layout zero mask full }
attention b2(n: runtime = 3) { heads 8 layout large mask full }
attention c(n: runtime = 3) { heads 8 layout moving mask full }
attention d { heads 8 layout good mask across }
attention e { heads 8 mask across }

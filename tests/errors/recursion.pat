# Recursion, direct and not.

pattern a = a                                  # E[recursion]
pattern b2 = c & full
pattern c = d | full
pattern d = full & b2                          # E[recursion]
def f(t) = f(t - 1)                            # E[recursion]

# Inputs that cannot be, and reads of them that cannot.

attention a(w) {
    heads 8 kv 2
    input w[h] : int                           # E[duplicate-name]
    input doc[k] : int
    input doc[q] : int                         # E[duplicate-name]
    input q[h] : int                           # E[reserved-name]
    input late[k, b] : int                     # E[bad-input]
    input flags[k] : bool sorted               # E[bad-input]
    input one[b] : int sorted                  # E[bad-input]
    input odd[doc] : int                       # E[unknown-name]
    input pair[full, k] : int                  # E[type]
    input spare[k] : int                       # W[unread-input]
    input slope[h] : float
    mask doc[q, k] == w                        # E[arity]
        | doc == 3                             # E[arity]
        | late[k, q] == one                    # E[arity]
        | flags[k] == 3                        # E[type]
        | doc[k]                               # E[type]
        | slope[h] < q                         # E[type]
        | slope[h]                             # E[type]
        | doc(k) == 3                          # E[type]
        | b == 3                               # E[wrong-place]
        | odd[q] < doc[flags[k]]               # E[type]
        | pair[one[b], k] == 0                 # E[arity] E[wrong-place]
}
attention counts {
    heads pace[0]                              # E[unknown-name]
    input pace[4] : int
    mask full
}

# `score` replaces the logit `s` of a pair, `output` the output `o` of a row; both may
# read inputs. `sink` is a learned logit without a key, `skip` leaves heads out.

attention alibi_softcap {                     # a slope for each head, logits below 50
    heads 4
    input slope[h] : float
    mask  causal
    score softcap(s, 50.0) + slope[h] * (k - q)
}

attention learned_sinks {                     # a row may look at nothing, as in gpt-oss
    heads 4 kv 2
    input logit[h] : float
    mask  window(128)  for h % 2 == 0
    mask  causal       otherwise
    sink  logit[h]
}

attention gated(u = 0.4) {
    heads 4
    input gate[h, q] : float
    mask   full                     otherwise
    output gate[h, q] * o           for h in {0, 1}
    output (1 - u) * o + u * v      for h in {2}    # toward the query's own value row
    skip   for h in {3}                             # costs nothing, gives 0
}

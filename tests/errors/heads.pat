# Counts of heads and cases over them.

attention a { mask full }                      # E[missing-clause]
attention b2 { heads 8 }                       # E[missing-clause]
attention c { heads 8 heads 8 mask full }      # E[duplicate-clause]

# attention-gym: 2-D neighbourhood (NATTEN) on 16 x 32, kernel 5 x 7.
attention G7 { heads 1  mask neighborhood_2d(16, 32, 5, 7) }

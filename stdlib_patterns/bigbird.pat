# bigbird(block, chance, seed): neighbouring, global and random blocks.
#
# Paper: "Big Bird: Transformers for Longer Sequences", arXiv 2007.14062
# Picture: --k-len 512 --set block=16
#
# A block sees itself and its two neighbours; the first and the last block of the keys
# see and are seen by all; and of the others about one in `chance` is seen, chosen by a
# hash of the two blocks and the seed where the paper draws 3 of them from a table. With
# Transformers' defaults (blocks of 64, 4096 tokens, 3 random blocks) that is 1 in 21.

def mixed(x, y, seed) = (x * 181 + y * 359 + seed * 97) % 509
def hashed(x, y, seed) = (mixed(x, y, seed) * mixed(y, x, seed + 1) + x + 3 * y) % 8191

pattern bigbird(block, chance = 21, seed = 0) = (
    band(1) | q == 0 | k == 0 | hashed(q, k, seed) % chance == 0
)[q // block, k // block]
    | q // block == (N - 1) // block
    | k // block == (N - 1) // block

attention claims(block = 64, chance = 21, seed = 0) {
    heads 1
    mask bigbird(block, chance, seed)
    assert density < 0.18 at N = 4096
}

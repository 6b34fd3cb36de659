# attention-gym: sliding tile (STA): 16 x 32 tokens, tile after tile of 4 x 8; text behind.
layout canvas = video[row = 4, column = 4, place = 32] + text[20]

attention G10 {
    heads 1
    layout canvas
    mask q in text | k in text
        | neighborhood(4, 2)[q.row, k.row] & neighborhood(4, 3)[q.column, k.column]
}

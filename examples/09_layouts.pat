# A `layout` says what the tokens of a sequence are: segments, some with axes. `q.y` is
# the query's coordinate, and a comparison that reads it is false outside its segment.
# An `order` changes speed, never the result: it puts together what is seen together.

layout clip = text[16] + video[f = 6, y = 12, x = 16]

attention near_in_space_and_time {            # sliding windows of a video, and all text
    heads 4
    layout clip
    mask  q in text | k in text
        | abs(q.f - k.f) <= 1 & abs(q.y - k.y) <= 3 & abs(q.x - k.x) <= 3
    order video by tile(f = 2, y = 4, x = 8)
}

attention temporal_heads(w = 2) {             # half of the heads look along time
    heads 4
    layout clip
    mask  q in text | k in text | abs(q.y * 16 + q.x - k.y * 16 - k.x) <= w  for h < 2
    mask  q in text | k in text | abs(q.f - k.f) <= w                        otherwise
    order video by axes(y, x, f)                                             for h < 2
}

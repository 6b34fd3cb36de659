# attention-gym: video sparse attention: three key tiles chosen for each query tile.
attention G15 {
    heads 1
    input chosen[q // 64, 3] : int
    mask chosen[q // 64, 0] == k // 64
        | chosen[q // 64, 1] == k // 64
        | chosen[q // 64, 2] == k // 64
}

# grid(start, end, stride, n, w, last, ...): tri-shape, some rows and some columns.
#
# Paper: "MMInference: Accelerating Pre-filling for Long-Context VLMs via Modality-Aware
# Permutation Sparse Attention", arXiv 2504.16083, its grid head.
# Picture: --k-len 96 --set start=4 --set end=96 --set stride=8
# Picture: --set n=4 --set w=8 --set last=4 --set unit=1
#
# Vision tokens are [start, end); a frame or row of them has `stride` tokens. Rows count
# from n + w, columns from n, both for a whole number of `unit` strides, and in phase
# with `start`. Kernel and reference of the released code disagree on the phase (the
# reference takes the last token of a frame); this is the kernel's. The kernel rounds n
# and w up to multiples of 64: give such.

def spanned(length, unit) = length // unit * unit

pattern grid(start, end, stride, n, w, last, unit = 64) =
    tri_shape(n, w, last)
    | causal & 0 <= q - n - w < spanned(end - n - w, unit * stride)
             & (q - n - w) % stride == (start - n - w) % stride
    | causal & 0 <= k - n < spanned(end - n - w, unit * stride)
             & (k - n) % stride == (start - n) % stride

attention claims(
    start = 64, end = 32768, stride = 14, n = 1024, w = 1024, last = 64, unit = 64
) {
    heads 1
    mask grid(start, end, stride, n, w, last, unit)
    assert mask within causal
    assert tri_shape(n, w, last) within mask
    assert every q has k
}

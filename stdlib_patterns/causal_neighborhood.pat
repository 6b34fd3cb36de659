# causal_neighborhood(n, kernel, ...): the kernel last keys of a dilated axis.
#
# Paper: "Generalized Neighborhood Attention", arXiv 2504.16922, a causal axis.
# Picture: --k-len 48 --set n=48 --set kernel=12 --set stride=4
#
# `stride` queries share the window of their leader, here the last of them, and each
# sees what of it is not in its future. The rule is NATTEN's.

pattern causal_neighborhood(n, kernel, stride = 1, dilation = 1) =
    q % dilation == k % dilation
    & k <= q
    & min(
        q // dilation // stride * stride + stride - 1,
        (n - q % dilation + dilation - 1) // dilation - 1
    ) - k // dilation < kernel

attention claims(n = 4096, kernel = 256, stride = 16, dilation = 1) {
    heads 1
    mask causal_neighborhood(n, kernel, stride, dilation)
    assert mask within window(kernel * dilation) | q >= n
}

# neighborhood(n, kernel, stride, dilation): the kernel nearest of n tokens.
#
# Paper: "Neighborhood Attention Transformer", arXiv 2204.07143; dilated in
# arXiv 2209.15001; with a stride "Generalized Neighborhood Attention", arXiv 2504.16922
# Picture: --k-len 48 --set n=48 --set kernel=9
#
# At the ends the window is pushed inwards, so that every query sees `kernel` keys.
# `stride` queries share the window of their leader, the middle one. With a `dilation`
# each residue is a sequence of its own. The rule is NATTEN's, also for an even kernel
# (one key more on the left); attention-gym has odd kernels only, and no dilation.

pattern neighborhood(n, kernel, stride = 1, dilation = 1) =
    q % dilation == k % dilation
    & -(kernel // 2) <= k // dilation - clamp(
        q // dilation // stride * stride + stride // 2,
        kernel // 2,
        (n - q % dilation + dilation - 1) // dilation - (kernel + 1) // 2
    ) < (kernel + 1) // 2

attention claims(n = 4096, kernel = 13, stride = 1, dilation = 1) {
    heads 1
    mask neighborhood(n, kernel, stride, dilation)
    assert mask within band((kernel - 1) * dilation + stride) | q >= n
    assert density < 0.0032 at N = 4096
}

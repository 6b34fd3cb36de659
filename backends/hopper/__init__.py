"""Kernels for Hopper: TMA, asynchronous products, warps that specialise.

In: a planned kernel. Out: the portable module with a kernel in Gluon beside its own
(`load`, `emit`), or the reason why a program has none (`route`). Not its job: what
the portable kernels do as well on any device (`backends.triton`).
"""

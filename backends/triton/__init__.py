"""Portable Triton kernels.

In: a planned kernel. Out: a callable on tensors (`load`) or a module's text (`emit`),
which needs neither torch nor triton. Not its job: the other backends.
"""

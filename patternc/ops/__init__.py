"""Attentions as PyTorch operators: one to compute, one for the gradients.

In: a loaded attention. Out: a call that autograd, torch.func, torch.compile,
torch.export, autocast and the FLOP counter know how to take. Not its job: checking a
call's arguments (`patternc.attention`), the computation (`patternc.backends`).
"""

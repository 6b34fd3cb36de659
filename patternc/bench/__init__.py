"""Benchmarks: patternc beside its peers, in one run, as ratios.

In: a device. Out: measurements and a Markdown report. Not its job: correctness
(`patternc.verify`); a benchmark is never a test.
"""

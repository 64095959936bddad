"""Benchmarks: `make bench`, or `python -m lab.bench NAME …`. What each figure means: docs/benchmarks.md.

Every figure is a ratio, or a time, from one run on one machine. What is compared runs in turns, several times, and the
median of the turns counts, so that a machine that is busy for a while slows both sides.
"""

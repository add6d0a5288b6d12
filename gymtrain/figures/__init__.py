"""Figures of what was learned: pure functions from arrays and names to a `matplotlib.figure.Figure`.

None of them touches pyplot, which keeps every figure that it made and belongs to the caller's program.
"""

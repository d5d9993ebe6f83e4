"""Figures of the results: scores with intervals, score against cost, learning curves. Drawn with matplotlib."""

"""Grades instruction following: pairwise comparisons, win rates, and the length-controlled win rate."""

"""Instruction following: pairs of responses, win rates, and the length-controlled win rate."""

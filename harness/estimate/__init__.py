"""Estimates of the tokens, FLOPs, memory and time of a plan, made before any work."""

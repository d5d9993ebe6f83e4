"""Tokens, FLOPs, memory and time that a plan would take, before any work."""

"""Engines that tasks grade with: mathematics, programs, judged answers. None imports torch."""

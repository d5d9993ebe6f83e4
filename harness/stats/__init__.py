"""Statistics of scores: intervals and paired tests, variance between seeds, pass@k."""

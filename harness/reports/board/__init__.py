"""The results as a static site: leaderboard, figures, a page per run, comparisons problem by problem."""

"""The results as a static site: leaderboard, figures, a page a run, two methods problem by problem."""

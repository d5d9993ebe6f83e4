"""Records as tables: who shares a row, what a row may claim, how it looks."""

"""Records as tables: which records form a row, what a row may claim, how tables are printed."""

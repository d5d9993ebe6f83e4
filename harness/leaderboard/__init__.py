"""Records as tables: which records form a row, its statistics, how tables are printed."""

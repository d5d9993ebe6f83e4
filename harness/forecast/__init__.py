"""What a plan would do and take, before any work: sizes by counting, memory and time by arithmetic, refusals."""

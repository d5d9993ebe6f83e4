"""The embedded world: generated problems, a teacher and a student small enough for two CPU cores."""

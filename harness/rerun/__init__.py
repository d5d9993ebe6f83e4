"""A recorded row again: the command that makes it, and how far off a second run is."""

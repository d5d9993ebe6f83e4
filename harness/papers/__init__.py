"""Papers as data: what they report, how to reproduce their rows, and our rows next to theirs."""

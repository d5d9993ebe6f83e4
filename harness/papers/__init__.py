"""Papers as data: what they report, how their rows would be had again, and how ours stand beside theirs."""

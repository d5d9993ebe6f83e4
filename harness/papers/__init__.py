"""Papers as data: what they report, how their rows would be reproduced, and our rows next to theirs."""

"""What counting and comparing say about a paper's printed cells. Nothing here judges; every finding shows its sums."""

"""The training loop of every method, with text collection, batching, teacher signals, checkpoints and cost."""

"""The scripts behind results/engines."""

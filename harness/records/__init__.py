"""Results as facts: immutable, sealed, append-only, with their provenance."""

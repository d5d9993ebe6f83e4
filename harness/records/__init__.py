"""Result records: immutable, sealed, append-only, with provenance."""

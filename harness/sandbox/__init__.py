"""The only place where untrusted programs run."""

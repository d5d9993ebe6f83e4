"""Audits a paper's printed cells by counting and comparing. Nothing here judges; every finding shows its arithmetic."""

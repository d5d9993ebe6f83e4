"""Language models: loading, chunked output head, text generation, lm-eval adapter."""

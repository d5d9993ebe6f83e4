"""Language models: loading, chunked output head, text generation, lm-eval adapter."""

CHUNK_ELEMENTS = 2**25  # logits of one chunk of the head: 128 MiB in fp32

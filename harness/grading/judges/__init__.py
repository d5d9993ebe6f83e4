"""Who says which of two responses is better: models behind a server or here, recorded words, plain rules."""

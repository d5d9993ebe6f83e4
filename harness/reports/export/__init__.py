"""Results for other tools: trained students with model cards, records and completions as tables."""

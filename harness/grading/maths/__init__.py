"""Mathematical answers: read from a text, compared with the gold in processes of their own."""

"""Results for readers: the board (a static site), plots, and exports for hubs and papers."""

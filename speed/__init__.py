"""SPEED: synthesis of embedding data by small aligned models (arXiv 2410.18634)."""

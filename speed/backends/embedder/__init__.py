"""The embedder's contrastive training (paper §3.1, §4.1), our own."""

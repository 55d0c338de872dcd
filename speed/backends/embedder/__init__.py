"""The embedder's contrastive training (paper §3.1, §4.1): our own loop, since no library has the exact
gradient of a large batch at the cost of its real tokens (`speed.model.batching`)."""

"""Torch mathematics of the embedder: pooling, loss, batches. Shapes in the signatures, nothing read or written."""

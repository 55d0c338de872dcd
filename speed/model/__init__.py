"""The embedder's mathematics in torch: pooling, loss, batches. Signatures state shapes; no file is read or written."""

"""Texts to vectors: by a model in a folder, by sentence-transformers, by an endpoint; with a cache of the vectors."""

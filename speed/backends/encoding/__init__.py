"""Texts to vectors, whatever the model behind them: a folder, another library, an endpoint, a cache."""

"""Records and what is done to them: pure Python, no models, no network."""

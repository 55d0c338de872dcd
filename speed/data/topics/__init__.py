"""Topics: read from files and dumps, shortened, drawn."""

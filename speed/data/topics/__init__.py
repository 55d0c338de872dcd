"""Read topics from files and dumps, shorten them, and draw them."""

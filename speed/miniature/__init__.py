"""The miniature: a small world with a known truth, in which the whole pipeline runs in minutes without network or key."""

"""The miniature: a small world with a known truth. The whole pipeline runs in it in minutes, without network or key."""

"""The miniature: a small world with known facts. All stages run in it in minutes, without network or API key."""

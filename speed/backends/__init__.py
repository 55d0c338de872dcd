"""The only place where heavy packages appear: each file puts one of them behind a port of `speed.ports`."""

"""A generator on disk, in memory, and as it writes: what alignment, engines and exports share."""

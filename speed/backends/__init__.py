"""The only place where heavy packages appear: each package puts one part behind a port of `speed.ports`.

`alignment`, `embedder`, `engines`, `evaluation` and `tracking` are such parts; `generator`, `encoding` and `runtime`
are what several of them share. Teachers stand in `speed.teaching`.
"""

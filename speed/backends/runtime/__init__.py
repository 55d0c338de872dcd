"""How work is carried out, as `runtime` asks: device, processes and their ranks, the wish to stop."""

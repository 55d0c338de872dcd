"""How work is carried out, as `runtime` asks: on which device, in how many processes, until when."""

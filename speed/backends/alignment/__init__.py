"""Junior, senior and revisor: SFT and preference training through TRL (paper 3.2)."""

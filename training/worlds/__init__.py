"""How well planted ties are found again in simulated markets: per world and seed, beside memory and an oracle."""

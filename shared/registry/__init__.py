"""Container registries as Longshore sees them: their addresses, image references, and a client that asks them."""

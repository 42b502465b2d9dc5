"""How messages become means that all ranks agree on."""

"""The samples: loaded once into memory, spread over clients, cut into batches. Floor 1."""

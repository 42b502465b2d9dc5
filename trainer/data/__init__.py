"""The samples: loaded once into memory, partitioned across clients, cut into batches. Layer 1."""

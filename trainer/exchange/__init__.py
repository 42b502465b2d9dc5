"""What leaves a client, and how the ranks agree on what became of it."""

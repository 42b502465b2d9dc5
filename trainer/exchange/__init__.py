"""The exchange: what leaves a client, and how all ranks obtain the same result."""

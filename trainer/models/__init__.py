"""Plain nn.Modules that return logits; none knows of clients, ranks or parallelism. Layer 1."""

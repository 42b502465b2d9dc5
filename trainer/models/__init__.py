"""Plain nn.Modules that give logits; none knows of clients, ranks or parallelism. Floor 1."""

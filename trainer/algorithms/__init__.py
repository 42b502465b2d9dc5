"""The four moves: FedAvg is the default, other algorithms say only what they do differently."""

"""Algorithms: FedAvg is the default, the others say only what they do differently."""

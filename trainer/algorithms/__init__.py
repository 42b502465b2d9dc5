"""The algorithms: FedAvg is the default, and the others override only what they do differently."""

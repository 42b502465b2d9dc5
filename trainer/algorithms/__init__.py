"""The four moves: FedAvg is the default, every other algorithm says only what it does differently."""

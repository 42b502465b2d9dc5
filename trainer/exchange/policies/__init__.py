"""Which coordinates travel: masks that all ranks agree on."""

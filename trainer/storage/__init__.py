"""Where a run is kept: a folder that all ranks share, or a URL of an object store."""

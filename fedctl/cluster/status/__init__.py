"""A run on a cluster as it is now: job, ranks, snapshot, state, problems, and their tables."""

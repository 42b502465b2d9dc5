"""A run on this machine: what is checked first, its processes, what is shown while it runs."""

"""One run on this machine: checks before it starts, its processes, its progress."""

"""What asks a cluster: each module is one thing that is asked of it."""

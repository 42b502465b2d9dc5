"""Copies of run folders from a cluster to this machine. Leaves the cluster as it was."""

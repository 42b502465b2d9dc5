"""Copies of run folders from a cluster to this machine."""

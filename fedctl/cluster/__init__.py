"""Runs on a cluster. Starts no process of a run on this machine."""

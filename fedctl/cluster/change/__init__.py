"""Changes to a cluster: submit, suspend, resume, cancel, and the removal of leftovers."""

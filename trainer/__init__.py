"""The trainer, which runs in a pod or a local process, one per rank. It never imports fedctl."""

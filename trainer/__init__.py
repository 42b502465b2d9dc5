"""The trainer: runs inside the pod or a local process, one per rank; never imports fedctl."""

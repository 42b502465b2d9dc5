"""The Kubernetes API: requests, watches, commands in containers, kinds and errors. Knows no run."""

"""The Kubernetes API: requests, watches, commands in containers, kinds, errors. Knows no run."""

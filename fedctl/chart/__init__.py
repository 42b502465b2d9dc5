"""The chart of a run on Kubernetes: its values, from an experiment, and Helm. Asks no cluster."""

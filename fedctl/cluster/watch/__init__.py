"""A run on a cluster over time: its changes, waiting, logs, metrics. Changes nothing."""

"""A run on a cluster over time: changes, waiting, logs, metrics. Changes nothing."""

"""Checks of a cluster: what a run needs, and what is missing. Changes nothing."""

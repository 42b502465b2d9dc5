"""Checks of a cluster that a run would need to pass. Changes nothing."""

"""Transforms: changes that a client makes to its message before it is coded."""

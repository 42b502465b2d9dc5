"""Policies: masks, agreed by all ranks, of the coordinates that travel."""

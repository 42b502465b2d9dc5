"""Reductions: from messages to means that are the same on all ranks."""

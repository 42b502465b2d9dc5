"""The experiment: every setting of a run, typed and documented. Layer 0: no torch here."""

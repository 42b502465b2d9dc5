"""The experiment: every setting of a run, typed and documented. Floor 0: no torch here."""

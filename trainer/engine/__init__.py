"""The engine: it assembles an experiment into objects and runs it round by round."""

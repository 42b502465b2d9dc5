"""The command line. It runs on a laptop and never loads torch."""

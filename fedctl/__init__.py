"""The command line: runs on a laptop; knows the trainer's settings and metric names, no torch."""

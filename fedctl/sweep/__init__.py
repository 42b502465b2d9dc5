"""Several runs on this machine: the sweep file, its runs, and how they are run in turn."""

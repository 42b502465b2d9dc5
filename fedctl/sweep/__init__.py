"""Several runs on this machine: the sweep file, its variants, and how they are run in turn."""

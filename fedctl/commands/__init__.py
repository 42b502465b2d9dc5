"""The commands by subject. They parse options and print results; the work is done elsewhere."""

"""Run folders, read: rows, summaries, groups, tables, figures, the page. Starts no run."""

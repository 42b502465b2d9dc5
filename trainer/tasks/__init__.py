"""Tasks: the data, batches, loss and scores of a kind of problem."""

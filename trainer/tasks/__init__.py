"""What is learned: data, batches, loss and scores of a kind of problem."""

"""The gradient of the next batch, whatever it takes to compute it."""

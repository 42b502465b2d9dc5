"""Workers: what computes the gradient of the next batch, on one device or several."""

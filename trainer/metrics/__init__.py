"""The metrics of a run: the catalogue of names (layer 0), and the recorder that writes them."""

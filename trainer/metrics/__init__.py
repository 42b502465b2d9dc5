"""What a run tells: the catalogue of names (floor 0, no torch) and the recorder that writes them."""

"""What a run tells: the catalogue of names (floor 0) and the recorder that writes them."""

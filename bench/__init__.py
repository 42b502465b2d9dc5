"""Every figure in our documents: a script each, raw results in results/, tables made from them."""

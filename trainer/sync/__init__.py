"""What is exchanged and how: policies, codecs and the only module that calls a collective."""

"""What a client makes of its message before it is coded."""

"""ExecuTorch programs of encoders, for phones and other small devices."""

"""A corpus on disk: written, read, measured and shown."""

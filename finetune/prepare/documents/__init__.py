"""Reads documents: one module per format, imported when a file of that format is read."""

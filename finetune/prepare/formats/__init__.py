"""Reads files of rows: one module per format."""

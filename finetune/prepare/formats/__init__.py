"""Files of rows: one module per format."""

"""Files that are no tables of rows: one module per format, imported when a file of it is met."""

"""What a run learns: one objective per kind of rows, each with its batches and its loss."""

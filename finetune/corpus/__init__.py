"""Writes, reads, measures and shows a corpus on disk."""

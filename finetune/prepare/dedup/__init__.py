"""Finds exact duplicates and near-duplicates."""

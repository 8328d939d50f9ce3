"""Rows that give away an eval set."""

"""Decides which split a row belongs to."""

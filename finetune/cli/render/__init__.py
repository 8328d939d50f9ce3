"""Renders results as text for the terminal."""

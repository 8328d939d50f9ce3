"""Turns the columns of a row into an example."""

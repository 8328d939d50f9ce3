"""Cleans text for all later steps: repairs and filters it, and removes boilerplate and identifiers."""

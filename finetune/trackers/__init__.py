"""Experiment trackers: the configuration and the figures of a run, and nothing about the machine."""

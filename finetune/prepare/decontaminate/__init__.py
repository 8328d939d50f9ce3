"""Finds rows that contain items of an eval set."""

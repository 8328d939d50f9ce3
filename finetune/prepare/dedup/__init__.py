"""Rows that repeat each other: exactly, and nearly."""

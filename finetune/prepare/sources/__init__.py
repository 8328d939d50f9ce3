"""Where files come from, and how they are opened."""

"""What survives a kill, and what may go on from it."""

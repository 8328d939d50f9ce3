"""Training on several GPUs and machines: how to start it, and what it takes."""

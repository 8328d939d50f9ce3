"""Requests in, pieces of answers out: queues, batches, sampling and text; independent of HTTP."""

"""Adapter or Model → GGUF: a whole model, or the adapter alone, for llama.cpp and what is built on it."""

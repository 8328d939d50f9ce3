"""What computes logits for many sequences and adapters at once: transformers, or llama.cpp."""

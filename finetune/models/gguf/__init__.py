"""Models, tokenizers and adapters of Hugging Face as GGUF files, for llama.cpp."""

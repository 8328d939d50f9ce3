"""Models with linear layers in 8-bit floats, for vLLM and SGLang."""

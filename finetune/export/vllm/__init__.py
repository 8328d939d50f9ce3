"""Adapters as folders that vLLM and SGLang load beside the base model."""

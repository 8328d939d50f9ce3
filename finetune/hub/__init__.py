"""All that speaks to the Hugging Face Hub, and the settings that must precede the libraries that do."""

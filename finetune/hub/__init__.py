"""All access to the Hugging Face Hub, and the settings that must be made before its libraries are imported."""

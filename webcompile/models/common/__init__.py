"""What model files share: reading a Hugging Face config, and naming its weights."""

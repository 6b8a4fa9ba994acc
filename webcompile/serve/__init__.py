"""HTTP: the chat page with its artifacts, and the OpenAI API."""

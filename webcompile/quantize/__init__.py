"""Quantization schemes: which arrays stand for a weight matrix, and how to make them. One scheme family per file."""

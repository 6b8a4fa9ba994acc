"""Blocks of which models are assembled: Relax modules that call our kernels."""

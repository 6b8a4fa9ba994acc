"""Rewrites of the IRModule that are ours, one per file. `webcompile.pipeline` says in which order they run."""

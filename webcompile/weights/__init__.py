"""Model weights on their way from a published file to shards and back. One file format per file."""

"""Models as they are published, under one interface. One kind of source per file."""

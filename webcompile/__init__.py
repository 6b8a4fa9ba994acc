"""webcompile: language models compiled for the browser, and the same models run natively."""

__version__ = "0.1.0"

"""Links compiled models against the shared wasm runtime, in Python: whoever compiles a model needs no emscripten."""

from webcompile.link.model import export_objects, link_model
from webcompile.link.side_module import link_side_module

__all__ = ["export_objects", "link_model", "link_side_module"]

"""Links models: against the shared wasm runtime in Python, so that nobody needs emscripten; and for native hosts."""

from webcompile.link.model import export_objects, link_model
from webcompile.link.native import device_code, link_object, link_shared
from webcompile.link.side_module import link_side_module

__all__ = ["device_code", "export_objects", "link_model", "link_object", "link_shared", "link_side_module"]

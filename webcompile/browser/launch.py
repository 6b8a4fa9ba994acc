"""Finding a Chromium and starting it headless with WebGPU."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webcompile.errors import WebcompileError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

EXECUTABLE_VARIABLE = "WEBCOMPILE_BROWSER"
ARGUMENTS_VARIABLE = "WEBCOMPILE_BROWSER_ARGS"

ADAPTERS = ("swiftshader", "hardware")
"""Which WebGPU adapter to ask for: Chromium's own in software, which every machine has, or the machine's GPU."""

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge")
_COMMON_ARGUMENTS = (
    "--enable-unsafe-webgpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)
_HARDWARE_ON_LINUX = ("--enable-features=Vulkan", "--use-angle=vulkan", "--disable-vulkan-surface")
_INSTALL = (
    f"Install Chromium or Chrome, or run `playwright install chromium`, or set {EXECUTABLE_VARIABLE} to an executable "
    "(`webcompile doctor` shows what is found)."
)

_QUERY_ADAPTER = """async () => {
  const asked = navigator.gpu?.requestAdapter() ?? null;
  // Chromium never answers when it is told to use a Vulkan driver that is not there.
  const adapter = await Promise.race([asked, new Promise((resolve) => setTimeout(resolve, 15000, null))]);
  if (!adapter) return null;
  const { vendor, architecture, device, description } = adapter.info;
  const { maxBufferSize, maxStorageBufferBindingSize, maxStorageBuffersPerShaderStage } = adapter.limits;
  const name = [...new Set([vendor, architecture, device, description])].filter(Boolean).join(" ") || "unnamed";
  const limits = { maxBufferSize, maxStorageBufferBindingSize, maxStorageBuffersPerShaderStage };
  return { name, features: [...adapter.features].sort(), limits };
}"""


def browser_executable() -> Path:
    """The browser to run: $WEBCOMPILE_BROWSER, else a Chromium on the PATH, else Playwright's own download.

    Raises tool_missing saying how to get one.
    """
    chosen = os.environ.get(EXECUTABLE_VARIABLE)
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise WebcompileError("tool_missing", f"{EXECUTABLE_VARIABLE} is {chosen!r}, which is no executable", _INSTALL)
        return Path(found)
    on_path = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if on_path is not None:
        return Path(on_path)
    with _playwright() as playwright:
        downloaded = Path(playwright.chromium.executable_path)
    if not downloaded.exists():
        raise WebcompileError("tool_missing", "no Chromium-based browser was found", _INSTALL)
    return downloaded


def browser_arguments(adapter: str) -> list[str]:
    """Command line flags for one of ADAPTERS, then those of $WEBCOMPILE_BROWSER_ARGS.

    A Chromium whose WebGPU runs on another driver needs no other adapter: name it in $WEBCOMPILE_BROWSER and give it the
    environment it wants; it inherits this process's.
    """
    if adapter not in ADAPTERS:
        raise WebcompileError("request_invalid", f"unknown adapter {adapter!r}, expected one of {', '.join(ADAPTERS)}")
    arguments = list(_COMMON_ARGUMENTS)
    if adapter == "swiftshader":
        # SwiftShader does not start inside the sandbox. The only page that is ever opened is our own.
        arguments += ["--no-sandbox", "--use-webgpu-adapter=swiftshader"]
    elif sys.platform == "linux":
        arguments += _HARDWARE_ON_LINUX
    return arguments + shlex.split(os.environ.get(ARGUMENTS_VARIABLE, ""))


@contextmanager
def launch(adapter: str) -> Iterator[Browser]:
    """A headless browser with an empty profile of its own, closed at the end. Raises tool_missing or webgpu_unavailable."""
    import playwright.sync_api

    executable = browser_executable()
    with _playwright() as driver:
        try:
            # Ctrl-C is ours to handle: the driver would close the browser under a page that still works.
            browser = driver.chromium.launch(
                executable_path=executable, args=browser_arguments(adapter), handle_sigint=False, handle_sigterm=False
            )
        except playwright.sync_api.Error as error:
            raise WebcompileError("tool_missing", f"{executable} does not start: {error.message}", _INSTALL) from error
        try:
            yield browser
        finally:
            browser.close()


def page_adapter(page: Page) -> dict[str, Any] | None:
    """Name, features and limits of the page's WebGPU adapter; None if it has none. The page must come from a server."""
    found: dict[str, Any] | None = page.evaluate(_QUERY_ADAPTER)
    return found


@contextmanager
def _playwright() -> Iterator[Playwright]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        hint = "pip install 'webcompile[browser]'"
        raise WebcompileError("tool_missing", "the Python package playwright is not installed", hint) from error
    with sync_playwright() as driver:
        yield driver

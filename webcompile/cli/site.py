"""`webcompile site`: serve compiled models with a chat page, or write both as one static folder."""

from __future__ import annotations

import argparse
import ipaddress
import socket
import sys
from pathlib import Path

from webcompile.errors import WebcompileError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("artifacts", metavar="ARTIFACT", nargs="+", type=Path, help="folder that `compile` wrote")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)")
    parser.add_argument(
        "--port", type=int, default=8080, help="port to listen on, 0 for any free one (default: %(default)s)"
    )
    parser.add_argument("--export", metavar="DIR", type=Path, help="write a static site there instead of serving")
    parser.add_argument("--open", action="store_true", help="open the page in the default browser")


def run(arguments: argparse.Namespace) -> int:
    """Exports, or serves until interrupted."""
    if arguments.export is not None:
        return _export(arguments.artifacts, arguments.export)
    return _serve(arguments)


def _export(artifacts: list[Path], output: Path) -> int:
    from webcompile.serve.export import export_site

    site = export_site(artifacts, output)
    nbytes = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: {len(site.models)} model(s), {nbytes / 1e6:.1f} MB. Copy it to any static web host with https.")
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    import uvicorn

    from webcompile.serve.static import site_app

    app = site_app(arguments.artifacts)
    with _listen(arguments.host, arguments.port) as listener:
        address = _address(arguments.host, listener.getsockname()[1])
        print(f"Chat page: {address}  (Ctrl+C stops)", flush=True)
        if not _is_loopback(arguments.host):
            print("Browsers give WebGPU to other machines only over https: put a TLS proxy in front.", file=sys.stderr)
        if arguments.open:
            import webbrowser

            webbrowser.open(address)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket of our own, so that a taken port is an error that says what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise WebcompileError(
            "request_invalid",
            f"cannot listen on {host} port {port}: {error}",
            "Choose another port with --port; --port 0 takes any free one.",
        ) from error


def _address(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}/"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

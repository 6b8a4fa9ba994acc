"""`webcompile package`: a model as an object, a C header and weights, for a program on another system."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from webcompile.build.artifact import build_artifact
from webcompile.build.package import HEADER_FILE, TARGETS_OF, check_devices, write_package
from webcompile.contracts import QUANTIZATIONS
from webcompile.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    systems = "; ".join(f"{system}: {', '.join(targets)}" for system, targets in TARGETS_OF.items())
    parser.add_argument("model", metavar="MODEL", help="as for compile: 'demo', a folder, a .gguf file or HF://org/name")
    parser.add_argument(
        "--host",
        required=True,
        metavar="SYSTEM",
        help=f"{', '.join(TARGETS_OF)}, or a triple such as aarch64-linux-android",
    )
    parser.add_argument("--target", help=f"device (default: the first of its system; {systems})")
    parser.add_argument("--variant", default="", metavar="NAME", help="as in `compile`, such as f32 (default: the first)")
    parser.add_argument(
        "--quantization", default="q4f16_1", help=f"one of {', '.join(QUANTIZATIONS)} (default: %(default)s)"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the package")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Compiles, writes and prints what there is to do."""
    manifest, report = build_artifact(
        arguments.model,
        target=check_devices(arguments.host, arguments.target),
        quantization=arguments.quantization,
        output=arguments.output,
        progress=Progress(),
        host=arguments.host,
        variant=arguments.variant,
    )
    variant = write_package(report.folder, manifest)
    if arguments.json:
        summary = {"folder": str(report.folder), "object": variant.file, "header": HEADER_FILE, "host": variant.host}
        print(json.dumps({**summary, "target": variant.target, "variant": variant.name}))
        return 0
    print(
        f"{manifest.model.name}, {manifest.model.quantization}, {variant.target} {variant.name} on {variant.host}\n"
        f"  {variant.file}, {(report.folder / variant.file).stat().st_size / 1e3:.0f} kB\n"
        f"  weights, {manifest.weights.nbytes / 1e6:.1f} MB\n"
        f"  {HEADER_FILE}, example.cc\n"
        f"package: {report.folder}; README.txt says how to link it:\n  {(report.folder / 'link.txt').read_text().strip()}"
    )
    return 0

"""CUDA kernels from source to machine code, on any machine: it takes NVIDIA's compiler, not a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from webcompile.errors import WebcompileError

PIP_PACKAGES = ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime", "nvidia-cuda-cccl")
"""What together is a compiler, from release 13.0 on."""


def find_nvcc() -> Path:
    """NVIDIA's compiler: in $CUDA_HOME, on the PATH, in /usr/local/cuda, or installed by pip.

    Raises tool_missing saying how to get it.
    """
    packages = Path(sysconfig.get_path("purelib"))
    candidates = [Path(os.environ["CUDA_HOME"], "bin", "nvcc")] if os.environ.get("CUDA_HOME") else []
    candidates += [Path(found)] if (found := shutil.which("nvcc")) else []
    candidates += [Path("/usr/local/cuda/bin/nvcc"), *sorted(packages.glob("nvidia/cu*/bin/nvcc"), reverse=True)]
    for path in candidates:
        if path.is_file() and os.access(path, os.X_OK):
            return path
    raise WebcompileError(
        "tool_missing",
        "CUDA kernels are compiled by nvcc, which is not on the PATH, in $CUDA_HOME or among Python's packages",
        f"pip install {' '.join(f'{name}==13.*' for name in PIP_PACKAGES)} (no GPU is needed), or install the CUDA toolkit.",
    )


def compile_fatbin(source: str, architectures: Sequence[str]) -> bytes:
    """Machine code for each of `architectures` ("sm_80"), and PTX of the last for those to come.

    No fast math: tokens are to be those of the other targets. Raises tool_missing, or link_failed with what nvcc says.
    """
    codes = [f"arch={name.replace('sm', 'compute')},code={name}" for name in architectures]
    newest = architectures[-1].replace("sm", "compute")
    codes.append(f"arch={newest},code={newest}")
    with tempfile.TemporaryDirectory(prefix="webcompile-cuda-") as folder:
        kernels, output = Path(folder) / "kernels.cu", Path(folder) / "kernels.fatbin"
        kernels.write_text(source)
        command = [str(find_nvcc()), "--fatbin", "-O3", "-w", f"--threads={os.cpu_count()}", "-o", str(output), str(kernels)]
        command += [f"--generate-code={code}" for code in codes]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[-2000:]
            raise WebcompileError("link_failed", f"nvcc could not compile the kernels: {said}")
        return output.read_bytes()

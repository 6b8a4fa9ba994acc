#!/bin/sh
# Installs the Debian packages that building from source and testing need, if they are missing.
set -eu

missing=""
need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need emcc emscripten        # builds wasm/ into runtime.wasm, once
need wasm-opt binaryen      # shrinks it
need chromium chromium      # end-to-end tests, `generate --device webgpu`
need g++ g++                # links libraries for this machine's CPU, builds the plugins of native devices
have() { # have FILE PACKAGE
    [ -e "$1" ] || missing="$missing $2"
}
libraries="/usr/lib/$(uname -m)-linux-gnu"
have "$libraries/libvulkan.so.1" libvulkan1                     # devices vulkan and opencl, computed on the CPU
have "$libraries/libvulkan_lvp.so" mesa-vulkan-drivers
have "$libraries/libOpenCL.so.1" ocl-icd-libopencl1
have /etc/OpenCL/vendors/pocl.icd pocl-opencl-icd
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"

[ -n "$missing" ] || exit 0
command="apt-get install -y --no-install-recommends$missing"
echo "Missing Debian packages:$missing" >&2
if [ "$(id -u)" = 0 ]; then
    run=""
elif command -v sudo >/dev/null 2>&1 && [ -t 0 ]; then
    printf 'Install them with sudo %s? [y/N] ' "$command" >&2
    read -r answer
    [ "$answer" = y ] || { echo "Then run it yourself and try again." >&2; exit 1; }
    run="sudo"
else
    echo "No rights to install them here. As root, run: apt-get update && $command" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
$run apt-get update -qq
$run $command

#!/bin/sh
# On a machine with a GPU: the demo model by CUDA and by Vulkan against the CPU, and the speed of each, as JSON.
#   tools/compare-on-gpu.sh FOLDER     writes FOLDER/compare.{json,html} and FOLDER/bench-{cuda,vulkan}.json
# CUDA is compiled by nvcc, from the toolkit or from pip (`webcompile compile --target cuda` says how to get it).
set -eu
out=${1:?usage: compare-on-gpu.sh FOLDER}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$out"
# 1 says that targets differ by more than rounding explains; the report then has where.
status=0
"$python" -m webcompile compare demo --quantization q4f16_1 --targets cpu,cuda,vulkan -o "$out/model" --report "$out/compare" ||
    status=$?
for device in cuda vulkan; do
    "$python" -m webcompile bench "$out/model" --device "$device" --json > "$out/bench-$device.json" || status=$?
done
exit "$status"

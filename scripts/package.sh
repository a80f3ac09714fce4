#!/usr/bin/env bash
# Makes build/baton-VERSION-linux-x86_64.tar.gz: the stripped binary, and where it was built with CUDA the GPU's tests.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(build/baton --version | cut -d' ' -f2)
name=baton-$version-linux-x86_64
folder=build/$name
rm -rf "$folder" && mkdir -p "$folder"
cp scripts/gpu.sh tests/serving.py tests/gpu/deterministic_end_to_end.py LICENSE README.md "$folder/"
if [ -x build/tests/layer_oracle ]; then
  cp tests/fp8_llama.py tests/gpu/layer_reference.py tests/gpu/demo_model_check.py tests/gpu/demo_answers.json "$folder/"
fi
[ -x build/src/backend/cuda_gpu_test ] && ninja -C build cuda_gpu_racecheck_test
for program in build/baton build/src/backend/cuda_gpu_test build/src/backend/cuda_gpu_racecheck_test build/tests/engine_gpu_test build/tests/deterministic_gpu_test build/tests/transport_gpu_test build/tests/baton_bench_kernels build/tests/layer_oracle; do
  [ -x "$program" ] && strip -o "$folder/$(basename "$program")" "$program"
done
tar -C build -czf "build/$name.tar.gz" "$name"
ls -l "$folder" "build/$name.tar.gz"

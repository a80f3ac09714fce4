#!/usr/bin/env bash
# Checks (test) or measures (bench) the CUDA backend on a machine with a Hopper GPU. Runs in a checkout after `make`, and in the
# unpacked archive of `make package`, where the programs lie beside this script.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
find_program() {
  for folder in "$here" "$here/../build/tests" "$here/../build/src/backend" "$here/../build"; do
    [ -x "$folder/$1" ] && { echo "$folder/$1"; return; }
  done
  echo "gpu.sh: $1 is not built; run make where nvcc is found, or unpack the archive of make package" >&2
  exit 1
}
case "${1:-}" in
  test)
    "$(find_program baton)" devices
    "$(find_program cuda_gpu_test)" --gtest_brief=1
    "$(find_program engine_gpu_test)" --gtest_brief=1
    "$(find_program transport_gpu_test)" --gtest_brief=1
    ;;
  bench)
    "$(find_program baton)" devices
    "$(find_program baton_bench_kernels)" kernels engine "json=${2:-gpu_bench.json}"
    ;;
  *)
    echo "usage: gpu.sh test | bench [JSON]" >&2
    exit 2
    ;;
esac

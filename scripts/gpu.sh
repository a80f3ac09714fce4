#!/usr/bin/env bash
# Checks (test, sanitize) or measures (bench) the CUDA backend on a machine with a Hopper GPU. Runs in a checkout after `make`, and in the
# unpacked archive of `make package`, where the programs lie beside this script.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
find_program() {
  for folder in "$here" "$here/../build/tests" "$here/../build/src/backend" "$here/../build" "$here/../tests/gpu"; do
    [ -x "$folder/$1" ] && { echo "$folder/$1"; return; }
  done
  echo "gpu.sh: $1 is not built; run make where nvcc is found, or unpack the archive of make package" >&2
  exit 1
}
find_script() {
  if [ -f "$here/$1" ]; then echo "$here/$1"; else echo "$here/../tests/gpu/$1"; fi
}
case "${1:-}" in
  test)
    "$(find_program baton)" devices
    "$(find_program cuda_gpu_test)" --gtest_brief=1
    "$(find_program engine_gpu_test)" --gtest_brief=1
    "$(find_program deterministic_gpu_test)" --gtest_brief=1
    "$(find_program transport_gpu_test)" --gtest_brief=1
    python3 "$(find_program deterministic_end_to_end.py)" --baton "$(dirname "$(find_program baton)")"
    if python3 -c 'import torch, numpy' 2>/dev/null; then
      python3 "$(find_script layer_reference.py)"
    else
      echo "gpu.sh: python3 has no torch: layers were not compared with the reference"
    fi
    if [ -f "${BATON_MODEL:=$here/../models/SmolLM2-135M-Instruct.Q4_1.gguf}" ]; then
      python3 "$(find_script demo_model_check.py)" "$BATON_MODEL"
    else
      echo "gpu.sh: the demo model is not at $BATON_MODEL (BATON_MODEL names it): its answers were not compared with the CPU's"
    fi
    ;;
  sanitize)  # small cases of the kernels, under the tools that are named
    tools=("${@:2}")
    [ ${#tools[@]} = 0 ] && tools=(memcheck initcheck racecheck)
    for tool in "${tools[@]}"; do
      program=cuda_gpu_test
      groups=('*OneCta*:*OneShort*/0:*OneShort*/3:Sampling*:*Rows*/2:*Rows*/3:*Rows*/28:*Rows*/29:Fill*')
      if [ "$tool" = racecheck ]; then  # it is a hundred times slower: smaller cases, and what each of them takes
        program=cuda_gpu_racecheck_test
        groups=('*/InvariantGemm*OneCta*/0:*/InvariantGemm*OneCta*/5' '*/InvariantAttention*OneCta*/0:*/InvariantAttention*OneCta*/4'
          '*/AttentionTest*OneShort*/0' '*/AttentionTest*OneShort*/3' '*/AttentionTest*OneCta*/0' '*/AttentionTest*OneCta*/3'
          '*Rows*/2:*Rows*/3' '*Rows*/28:*Rows*/29' 'Sampling*Few*:Sampling*NotFinite')
      fi
      for group in "${groups[@]}"; do
        start=$SECONDS
        compute-sanitizer --tool "$tool" --error-exitcode 9 "$(find_program $program)" --gtest_brief=1 "--gtest_filter=$group"
        echo "$tool: clean in $((SECONDS - start)) s: $group"
      done
    done
    ;;
  bench)
    "$(find_program baton)" devices
    "$(find_program baton_bench_kernels)" "json=${2:-gpu_kernels.json}"
    "$(find_program baton)" bench engine --shape llama-70b-fp8 --device cuda --json "${3:-gpu_engine.json}"
    ;;
  *)
    echo "usage: gpu.sh test | sanitize [TOOL...] | bench [KERNELS_JSON [ENGINE_JSON]]" >&2
    exit 2
    ;;
esac

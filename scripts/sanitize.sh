#!/usr/bin/env bash
# Builds the C++ tests with a sanitizer (address or thread) and runs them.
set -euo pipefail
cd "$(dirname "$0")/.."
cmake -G Ninja -B "build-$1" -DCMAKE_BUILD_TYPE=Release -DBATON_SANITIZE="$1" >/dev/null
ninja -C "build-$1"
ctest --test-dir "build-$1" --output-on-failure --timeout 600

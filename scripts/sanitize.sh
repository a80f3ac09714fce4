#!/usr/bin/env bash
# Builds the C++ tests with a sanitizer (address or thread) and runs them.
set -euo pipefail
cd "$(dirname "$0")/.."
export CC=clang-19 CXX=clang++-19 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1 suppressions=$PWD/tests/tsan.supp"
cmake -G Ninja -B "build-$1" -DCMAKE_BUILD_TYPE=Release -DBATON_SANITIZE="$1" >/dev/null
ninja -C "build-$1"
# ThreadSanitizer has nothing to say about programs of one thread, and slows the searches among them tenfold.
one_thread='^(planner|handoff_explore_test|scheduler|kv|core)$'
[ "$1" = thread ] || one_thread='^$'
ctest --test-dir "build-$1" --output-on-failure --timeout 600 -E "$one_thread"

#!/usr/bin/env bash
# Runs each fuzz target for FUZZ_SECONDS (60), starting from its corpus. A crash leaves its input in build-fuzz/NAME/.
set -euo pipefail
cd "$(dirname "$0")/.."
cmake -G Ninja -B build-fuzz -DCMAKE_BUILD_TYPE=Release -DBATON_FUZZ=ON -DBATON_TESTS=OFF -DBATON_SANITIZE=address >/dev/null
ninja -C build-fuzz
failed=0
for target in build-fuzz/tests/*_fuzz; do
  name=$(basename "$target")
  mkdir -p "build-fuzz/$name/corpus"
  echo "== $name"
  if ! "$target" -max_total_time="${FUZZ_SECONDS:-60}" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
      -artifact_prefix="build-fuzz/$name/" "build-fuzz/$name/corpus" "tests/fuzz/corpus/$name" >"build-fuzz/$name/log" 2>&1; then
    tail -n 30 "build-fuzz/$name/log"
    failed=1
  fi
  grep -E 'number_of_executed_units|new_units_added' "build-fuzz/$name/log" || true
done
exit $failed

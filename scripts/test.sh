#!/usr/bin/env bash
# Runs the tests and prints the counts: `test.sh` for all of them, or `test.sh unit`, `python` or `sanitizers`.
set -uo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
passed=0 failed=0
count() { passed=$((passed + $1)); failed=$((failed + $2)); }

unit() {
  local log; log=$(mktemp)
  for program in build/src/*/*_test build/tests/*_test; do
    [ -x "$program" ] || continue
    local name; name=$(basename "$program")
    [[ $name == *gpu_test ]] && continue  # make gpu-test
    if timeout 600 "$program" --gtest_brief=1 >"$log" 2>&1; then
      local n; n=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) tests\?\./\1/p' "$log" | tail -n 1)
      printf '  %-32s %5s passed\n' "$name" "${n:-0}"
      count "${n:-0}" 0
    else
      cat "$log"
      local bad; bad=$(grep -c '^\[  FAILED  \] .*ms)$' "$log")
      printf '  %-32s FAILED\n' "$name"
      count 0 $((bad > 0 ? bad : 1))
    fi
  done
  for program in build/tests/*_fuzz; do
    [ -x "$program" ] || continue
    local name; name=$(basename "$program")
    if timeout 120 "$program" "tests/fuzz/corpus/$name" >"$log" 2>&1; then
      printf '  %-32s corpus replayed\n' "$name"
      count 1 0
    else
      tail -n 30 "$log"
      printf '  %-32s FAILED\n' "$name"
      count 0 1
    fi
  done
  rm -f "$log"
}

python() {
  local log; log=$(mktemp)
  .venv/bin/python -m pytest tests -q --durations=10 -p no:cacheprovider 2>&1 | tee "$log"
  local n bad errors
  n=$(sed -n 's/.* \([0-9][0-9]*\) passed.*/\1/p; s/^\([0-9][0-9]*\) passed.*/\1/p' "$log" | tail -n 1)
  bad=$(sed -n 's/.*[^0-9]\([0-9][0-9]*\) failed.*/\1/p; s/^\([0-9][0-9]*\) failed.*/\1/p' "$log" | tail -n 1)
  errors=$(sed -n 's/.* \([0-9][0-9]*\) errors\?.*/\1/p' "$log" | tail -n 1)
  count "${n:-0}" $((${bad:-0} + ${errors:-0}))
  [ -n "$n" ] || count 0 1  # nothing passed: the run itself is broken
  rm -f "$log"
}

# The C++ tests again under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer; a program counts as one.
sanitizers() {
  local log; log=$(mktemp)
  for sanitizer in address thread; do
    scripts/sanitize.sh "$sanitizer" >"$log" 2>&1
    local n bad
    n=$(grep -c ' Passed ' "$log")
    bad=$(grep -cE '\*\*\*(Failed|Timeout|Exception)' "$log")
    [ "$n" -gt 0 ] || bad=$((bad + 1))  # it did not even build
    if [ "$bad" -gt 0 ]; then tail -n 60 "$log"; fi
    printf '  %-32s %5s programs passed, %s failed\n' "$sanitizer sanitizer" "$n" "$bad"
    count "$n" "$bad"
  done
  rm -f "$log"
}

case "$what" in
  all) echo "C++ tests"; unit; echo "Python tests"; python; echo "C++ tests under sanitizers"; sanitizers ;;
  unit | python | sanitizers) "$what" ;;
  *) echo "usage: test.sh [unit | python | sanitizers]" >&2; exit 2 ;;
esac
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

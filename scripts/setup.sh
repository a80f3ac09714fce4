#!/usr/bin/env bash
# Installs the packages of packages.txt that are missing. Does nothing, quickly, when none is.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t packages < <(sed 's/#.*//; s/[[:space:]]//g; /^$/d' packages.txt)
missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null; then
  echo "Baton builds on Debian 12; this machine has no apt-get. Missing: ${missing[*]}" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "Packages are missing. Run this as root, then try again:" >&2
  echo "    apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
echo "installing ${#missing[@]} packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# An interrupted download is worth a second try; a refusal fails again at once.
for attempt in 1 2; do
  if apt-get update >"$log" 2>&1 && apt-get install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1; then exit 0; fi
done
tail -n 20 "$log" >&2
exit 1

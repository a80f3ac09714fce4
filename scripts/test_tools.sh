#!/usr/bin/env bash
# The benchmark tools of others, unchanged, against a real server: aiperf, and the requests of genai-perf.
# aiperf is large (860 MB), so it has a virtual environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
model=${BATON_MODEL:-models/SmolLM2-135M-Instruct.Q4_1.gguf}
baton=${BATON_BUILD:-build}/baton
python=.venv-tools/bin/python
requests=8 output_tokens=16

if [ ! -e .venv-tools/done ]; then
  echo "installing aiperf 0.13 into .venv-tools"
  python3 -m venv .venv-tools
  .venv-tools/bin/pip install -q --disable-pip-version-check 'aiperf==0.13.*' 'gguf==0.17.1'
  touch .venv-tools/done
fi

work=$(mktemp -d)
server=
finish() {
  if [ -n "$server" ] && kill -TERM "$server" 2>/dev/null; then wait "$server" || true; fi
  rm -rf "$work"
}
trap finish EXIT

"$python" scripts/make_tokenizer_dir.py "$model" "$work/tokenizer"
"$baton" serve "$model" --prefill 1x1 --decode 1x1 --port 0 >"$work/log" 2>&1 &
server=$!
for _ in $(seq 600); do
  grep -q 'serving .* at http' "$work/log" && break
  kill -0 "$server" 2>/dev/null || { cat "$work/log"; exit 1; }
  sleep 0.2
done
url=$(sed -n 's/.*serving .* at \(http:[^ ]*\).*/\1/p' "$work/log" | head -n 1)
[ -n "$url" ] || { cat "$work/log"; echo "the server was not ready within two minutes"; exit 1; }
name=$(curl -sf "$url/v1/models" | "$python" -c 'import json, sys; print(json.load(sys.stdin)["data"][0]["id"])')

# HF_HUB_OFFLINE must be unset: with it aiperf refuses a local --tokenizer directory.
env -u HF_HUB_OFFLINE .venv-tools/bin/aiperf profile --model "$name" --url "$url" --tokenizer "$work/tokenizer" \
  --endpoint-type chat --endpoint /v1/chat/completions --streaming \
  --synthetic-input-tokens-mean 96 --synthetic-input-tokens-stddev 0 \
  --output-tokens-mean $output_tokens --output-tokens-stddev 0 \
  --extra-inputs ignore_eos:true --extra-inputs min_tokens:$output_tokens \
  --concurrency 2 --request-count $requests --warmup-request-count 2 --random-seed 100 \
  --ui none --artifact-dir "$work/aiperf" >"$work/aiperf.log" 2>&1 || { tail -n 60 "$work/aiperf.log"; exit 1; }
"$python" scripts/check_aiperf.py "$work/aiperf" $requests $output_tokens || { tail -n 60 "$work/aiperf.log"; exit 1; }
"$python" scripts/replay_genai_perf.py "$url" "$name" --requests $requests --output-tokens $output_tokens

"""Checks what `aiperf profile` exported: every request counted, none failed, and every answer as long as asked for.

    check_aiperf.py ARTIFACT_DIR REQUESTS OUTPUT_TOKENS
"""
import json
import pathlib
import sys


def main():
    folder, requests, output_tokens = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    files = sorted(folder.rglob("profile_export_aiperf.json"))
    if not files:
        sys.exit(f"aiperf left no profile_export_aiperf.json under {folder}")
    result = json.loads(files[-1].read_text())

    def average(name):
        return (result.get(name) or {}).get("avg")

    failed = average("error_request_count") or 0
    if average("request_count") != requests or failed or result.get("error_summary"):
        sys.exit(f"expected {requests} requests and no error, found {average('request_count')}, {failed} failed: "
                 f"{result.get('error_summary')}")
    if average("usage_completion_tokens") not in (None, output_tokens):
        sys.exit(f"expected {output_tokens} output tokens, found {average('usage_completion_tokens')}")
    print(f"aiperf: {requests} of {requests} requests, no error; TTFT {average('time_to_first_token'):.1f} ms, "
          f"ITL {average('inter_token_latency'):.2f} ms, {average('output_token_throughput'):.1f} tokens/s")


if __name__ == "__main__":
    main()

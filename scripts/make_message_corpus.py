"""Writes tests/fuzz/corpus/worker_message_fuzz: one honest and some crooked messages of each kind that a worker gets.

Needs protoc on the path; messages are written in protobuf's text format, which says what they are.
"""
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
REQUEST = 'request { id: "r" prompt: [1, 2, 3, 4, 5, 6, 7, 8] sampling { max_tokens: 4 top_p: 1 repetition_penalty: 1 seed: 7 } }'
MESSAGES = {
    "hello": 'hello { worker: 3 incarnation: 1 process: "x" }',
    "generate": "generate { stream: 7 %s }" % REQUEST,
    "generate_prefill": 'generate { stream: 7 %s prefill { worker: 2 incarnation: 1 address: "unix:/nowhere/x" process: "p" } }' % REQUEST,
    "generate_strange_tokens": 'generate { stream: 7 request { prompt: [-5, 2000000000] sampling { max_tokens: -3 temperature: -1 } } }',
    "generate_empty": "generate { stream: 7 }",
    "cancel": "cancel { stream: 7 }",
    "reset": "reset_prefix_cache { }",
    "prefill_without_pool": "prefill { epoch: 9 %s }" % REQUEST,
    "pool_offer": 'pool_offer { owner { fingerprint: "sim/32000/16" block_size: 16 } pool: "xyz" block_bytes: 2048 probe_blocks: [-1, 70000] }',
    "reservation": "reservation { epoch: 9 blocks: [0, -1, 99999999] first_missing: 1 }",
    "cancel_prefill": "cancel_prefill { epoch: 9 }",
    "tokens_to_a_worker": "tokens { updates { stream: 1 finish: 77 } }",
    "members": 'members { members { worker: 1 incarnation: 1 state: DEAD } }',
}


def main():
    folder = ROOT / "tests" / "fuzz" / "corpus" / "worker_message_fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in MESSAGES.items():
        encoded = subprocess.run(["protoc", "--encode=baton.proto.Envelope", f"-I{ROOT}/src", "proto/baton.proto"],
                                 input=text.encode(), capture_output=True, check=True).stdout
        (folder / name).write_bytes(encoded)


if __name__ == "__main__":
    main()

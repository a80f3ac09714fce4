#!/usr/bin/env python3
"""--deterministic with real processes: one hybrid worker, prefill and decode workers in one process, and in two, and a decode worker
that is killed in the middle give the same tokens, one request at a time and sixteen at once.

Needs Python's standard library, serving.py (beside it or in tests/) and the baton program. On a machine without a GPU: --device cpu
--model smollm2-135m."""
import argparse
import concurrent.futures
import json
import pathlib
import random
import signal
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from serving import serving  # noqa: E402

# Of the shape of Llama 3.1 8B, but eight layers and a small vocabulary: its dummy weights are made in a moment.
CONFIGURATION = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 8,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 16384, "max_position_embeddings": 16384,
    "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1, "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "quantization_config": {
        "quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"],
        "config_groups": {"group_0": {
            "targets": ["Linear"], "output_activations": None,
            "weights": {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel", "dynamic": False},
            "input_activations": {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "token", "dynamic": True}}}}}


def bodies(arguments):
    """Greedy and sampled, short and long, some with a prefix in common, some with several choices."""
    draw = random.Random(11)
    vocabulary = arguments.vocabulary - 300
    tokens = lambda count: [256 + draw.randrange(vocabulary) for _ in range(count)]
    shared = tokens(arguments.longest // 2)
    requests = []
    for index in range(arguments.requests):
        prompt = tokens(1 + draw.randrange(arguments.longest))
        if index % 3 == 0:
            prompt = shared + prompt[:arguments.longest // 4 + 1]
        fields = {"prompt": prompt, "max_tokens": 4 + (index * 7) % arguments.generated, "seed": index, "ignore_eos": True,
                  "temperature": 0 if index % 2 == 0 else 0.9}
        if index % 5 == 1:
            fields.update(top_p=0.9, top_k=40, frequency_penalty=0.5, presence_penalty=0.2)
        if index % 7 == 3:
            fields["n"] = 3
        requests.append(fields)
    return requests


def answers(server, requests, concurrency):
    def one(fields):
        answer = server.complete(**fields)
        return [choice["token_ids"] for choice in sorted(answer["choices"], key=lambda choice: choice["index"])]
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(one, requests))


def check(name, expected, found):
    different = [index for index, (a, b) in enumerate(zip(expected, found)) if a != b]
    tokens = sum(len(choice) for answer in found for choice in answer)
    if different:
        a, b = expected[different[0]], found[different[0]]
        first = next(i for i, (x, y) in enumerate(zip(sum(a, []), sum(b, []))) if x != y)
        sys.exit(f"{name}: {len(different)} of {len(found)} answers differ, the first is request {different[0]}, from token {first} on")
    print(f"{name}: {len(found)} answers, {tokens} tokens, all equal", flush=True)


def kill_in_the_middle(server, process):
    """kill -9 of a worker's process when it has generated for a while; returns the thread that does it."""
    def act():
        try:
            server.wait_until(lambda: server.worker("decode-0")["running"] >= 4, 60)
            time.sleep(0.15)
            server.kill(process, signal.SIGKILL)
        except AssertionError:
            pass  # the caller sees that nobody died
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baton", default=None, help="folder of the baton program [beside this script, or build/]")
    parser.add_argument("--model", default=None, help="shape or directory for dummy weights [a small Llama in FP8]")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--vocabulary", type=int, default=16384)
    parser.add_argument("--requests", type=int, default=24)
    parser.add_argument("--longest", type=int, default=1600, help="tokens of a prompt")
    parser.add_argument("--generated", type=int, default=90, help="tokens of an answer")
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.baton).resolve() if arguments.baton else next(f for f in (HERE, HERE.parent.parent / "build") if (f / "baton").exists())
    requests = bodies(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        model = arguments.model or str(scratch / "small-llama")
        if arguments.model is None:
            (scratch / "small-llama").mkdir()
            (scratch / "small-llama" / "config.json").write_text(json.dumps(CONFIGURATION))
        common = [model, "--load-format", "dummy", "--device", arguments.device, "--deterministic", "--max-model-len", str(2 * arguments.longest + 256),
                  "--kv-cache-gib", "2" if arguments.device == "cuda" else "0.5"]
        road = ["--prefill", "1x1", "--decode", "1x1", "--max-local-prefill", "0"]
        with serving(folder, [*common, "--hybrid", "1x1", "--no-prefix-caching"], scratch, "hybrid") as server:
            expected = answers(server, requests, 1)
            tokens = [token for answer in expected for choice in answer for token in choice]
            if len(set(tokens)) * 4 < len(tokens):
                sys.exit(f"the model says little: {len(set(tokens))} different ones among {len(tokens)} tokens")
            check("hybrid, sixteen at once", expected, answers(server, requests, 16))
        with serving(folder, [*common, "--hybrid", "1x1", "--max-num-batched-tokens", "320"], scratch, "chunks") as server:
            check("hybrid, small steps, prefix caching", expected, answers(server, requests, 16))
            check("hybrid, the same again from the cache", expected, answers(server, requests, 16))
        for name, options in (("one process", ["--share-process"]), ("two processes", ["--isolate"])):
            with serving(folder, [*common, *road, *options], scratch, "road") as server:
                check(f"prefill and decode in {name}, one at a time", expected, answers(server, requests, 1))
                check(f"prefill and decode in {name}, sixteen at once", expected, answers(server, requests, 16))
                if sum(worker["handoffs"] for worker in server.workers()) == 0:
                    sys.exit(f"prefill and decode in {name}: nothing was handed over")
                server.wait_nothing_left()
                if "--isolate" in options:
                    killer = kill_in_the_middle(server, "decode-0")
                    check("the decode worker killed in the middle", expected, answers(server, requests, 16))
                    killer.join()
                    server.wait_until(lambda: server.worker("decode-0")["incarnation"] == 2 and server.worker("decode-0")["state"] == "ready", 60)
                    server.wait_nothing_left()
    print("deterministic: all topologies agree")


if __name__ == "__main__":
    main()

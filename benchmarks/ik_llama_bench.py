"""llama-batched-bench for ik_llama.cpp, over the library API of its Python package: the same flags, the same table.

The package's wheel has the library but no benchmark program. Runs in the peers' own environment (.venv-peers/bin/python).
What is measured is llama_decode() alone, not this program's work between calls. Only shared prompts (-pps) are offered, since
attention with -fa on aborts (GGML_ASSERT(S > 0)) where the sequences of a batch have no token in common.
"""
import argparse
import ctypes
import time

import ik_llama_cpp._ctypes_api as api

PROMPT = "The capital of France is"
# Two functions that the package does not declare.
SYSTEM_INFO = api._lib.llama_print_system_info
SYSTEM_INFO.restype = ctypes.c_char_p
COPY_SEQUENCE = api._lib.llama_kv_cache_seq_cp
COPY_SEQUENCE.restype = None
COPY_SEQUENCE.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    for flag in ("-t", "-tb", "-b", "-ub", "-c", "-npl", "-ntg"):
        parser.add_argument(flag, type=int, required=True)
    parser.add_argument("-m", required=True, help="GGUF file")
    parser.add_argument("-fa", choices=("on", "off"), default="on", help="attention in one kernel")
    parser.add_argument("-pps", action="store_true", required=True, help="one prompt, shared by all sequences")
    parser.add_argument("-rtr", action="store_true", help="re-pack weights at load")
    parser.add_argument("-npp", required=True, help="lengths of prompts, with commas between them")
    return parser.parse_args()


def load(options):
    """(model, context)."""
    api.llama_backend_init()
    model_params = api.llama_model_default_params()
    model_params.repack_tensors = options.rtr
    model_params.use_mmap = not options.rtr
    model = api.llama_model_load_from_file(options.m.encode(), model_params)
    params = api.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = options.c, options.b, options.ub, options.npl
    params.n_threads, params.n_threads_batch = options.t, options.tb
    params.flash_attn = options.fa == "on"
    context = api.llama_init_from_model(model, params) if model else None
    if not context:
        raise SystemExit(f"ik_llama.cpp could not load {options.m}")
    return model, context


def fill(batch, tokens):
    """`tokens`: (token, position, sequence, whether logits are wanted) each."""
    batch.n_tokens = len(tokens)
    for i, (token, position, sequence, logits) in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, logits
        batch.seq_id[i][0] = sequence


def decode(context, batch):
    """Its seconds."""
    started = time.perf_counter()
    if code := api.llama_decode(context, batch):
        raise SystemExit(f"llama_decode of {batch.n_tokens} tokens: {code}")
    return time.perf_counter() - started


def row(context, batch, prompt, steps, sequences, tokens_max):
    """Seconds of the prompt, at most `tokens_max` tokens at a time, and of `steps` tokens for each sequence."""
    api.llama_kv_cache_clear(context)
    tokens = [(1000 + position, position, 0, position == prompt - 1) for position in range(prompt)]
    prefill_s = decode_s = 0.0
    for begin in range(0, prompt, tokens_max):
        fill(batch, tokens[begin:begin + tokens_max])
        prefill_s += decode(context, batch)
    for sequence in range(1, sequences):
        COPY_SEQUENCE(context, 0, sequence, -1, -1)
    for step in range(steps):
        fill(batch, [(2000 + step, prompt + step, sequence, True) for sequence in range(sequences)])
        decode_s += decode(context, batch)
    return prefill_s, decode_s


def greedy_text(model, context, batch, prompt, count=12):
    """What the model says after `prompt`: proof that it computes something."""
    vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
    text, buffer = prompt.encode(), (api.llama_token * 64)()
    size = api.llama_tokenize(model, text, len(text), buffer, 64, False, False)
    api.llama_kv_cache_clear(context)
    fill(batch, [(buffer[i], i, 0, i == size - 1) for i in range(size)])
    piece = ctypes.create_string_buffer(256)
    for position in range(size, size + count):
        decode(context, batch)
        logits = api.llama_get_logits_ith(context, batch.n_tokens - 1)[:vocabulary]
        token = max(range(vocabulary), key=logits.__getitem__)
        length = api.llama_token_to_piece(model, token, piece, 256, 0, False)
        text += piece.raw[:length]
        fill(batch, [(token, position, 0, True)])
    return text.decode(errors="replace")


def main():
    options = arguments()
    model, context = load(options)
    print(f"system_info: {SYSTEM_INFO().decode()}", flush=True)
    batch = api.llama_batch_init(options.b, 0, 1)
    print(f"text: {greedy_text(model, context, batch, PROMPT)!r}", flush=True)
    for prompt in map(int, options.npp.split(",")):
        prefill_s, decode_s = row(context, batch, prompt, options.ntg, options.npl, options.b)
        tokens, decoded, total_s = prompt, options.ntg * options.npl, prefill_s + decode_s
        decode_speed = decoded / decode_s if decoded else 0.0
        print(f"| {prompt} | {options.ntg} | {options.npl} | {tokens + decoded} | {prefill_s:.3f} | {tokens / prefill_s:.2f} | "
              f"{decode_s:.3f} | {decode_speed:.2f} | {total_s:.3f} | {(tokens + decoded) / total_s:.2f} |", flush=True)


if __name__ == "__main__":
    main()

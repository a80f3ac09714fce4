"""Makes a Hugging Face tokenizer directory from the demo model's GGUF file, for tools that want `--tokenizer DIR`.

    make_tokenizer_dir.py MODEL.gguf DIR      (needs the packages gguf and tokenizers)
"""
import json
import pathlib
import sys

import gguf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CONTROL = 3  # token type of GGUF


def read(path):
    fields = gguf.GGUFReader(path).fields

    def value(name):
        if name not in fields:
            sys.exit(f"{path} has no {name}: not a GGUF file with a byte-level BPE tokenizer")
        return fields[name].contents()

    if value("tokenizer.ggml.pre") != "smollm":
        sys.exit(f"{path}: expected the pre-tokenizer smollm (the demo model), found {value('tokenizer.ggml.pre')}")
    return value


def make_tokenizer(value):
    tokens = value("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in value("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False)
               for token, kind in zip(tokens, value("tokenizer.ggml.token_type")) if kind == CONTROL]
    tokenizer.add_special_tokens(special)
    return tokenizer, tokens


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    model, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    value = read(model)
    tokenizer, tokens = make_tokenizer(value)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    bos, eos = (tokens[int(value(f"tokenizer.ggml.{name}_token_id"))] for name in ("bos", "eos"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos,
                "clean_up_tokenization_spaces": False, "chat_template": value("tokenizer.chat_template"),
                "model_max_length": int(value("llama.context_length"))}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": len(tokens)}
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    print(f"{directory}: {len(tokens)} tokens")


if __name__ == "__main__":
    main()

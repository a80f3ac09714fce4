"""A Llama in float32 numpy, and files of small random Llamas: what the engine is compared with.

Weights are {name: float32 array} under Hugging Face names, with the rotary halves as Hugging Face keeps them.
"""

import json
import os
import struct
import sys
import types

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads spin, and the machine may be busy

import numpy as np

import k_quants

# gguf imports sentencepiece for conversions that are not used here.
sys.modules.setdefault("sentencepiece", types.ModuleType("sentencepiece")).SentencePieceProcessor = None
from gguf import GGMLQuantizationType, quants  # noqa: E402

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


class Llama:
    """config: Hugging Face's keys. All arithmetic is float32."""

    def __init__(self, config, weights):
        self.config = config
        self.weights = weights
        dim = config["head_dim"]
        frequencies = config["rope_theta"] ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)
        self.frequencies = scale_llama3(frequencies, config.get("rope_scaling"))

    def logits(self, tokens, rows=None):
        """Logits [rows][vocabulary] after each token of one sequence, or after those that `rows` selects."""
        c, w = self.config, self.weights
        heads, kv_heads, dim = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        count = len(tokens)
        angles = np.outer(np.arange(count), self.frequencies)
        cosines, sines = np.cos(angles).astype(np.float32)[:, None], np.sin(angles).astype(np.float32)[:, None]
        mask = np.triu(np.full((count, count), -np.inf, np.float32), 1)
        x = w["model.embed_tokens.weight"][tokens]
        for i in range(c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            h = self._norm(x, p + "input_layernorm")
            q = rotate(self._linear(h, p + "self_attn.q_proj").reshape(count, heads, dim), cosines, sines)
            k = rotate(self._linear(h, p + "self_attn.k_proj").reshape(count, kv_heads, dim), cosines, sines)
            v = self._linear(h, p + "self_attn.v_proj").reshape(count, kv_heads, dim)
            k, v = (np.repeat(y, heads // kv_heads, axis=1).transpose(1, 0, 2) for y in (k, v))
            scores = q.transpose(1, 0, 2) @ k.transpose(0, 2, 1) / np.float32(np.sqrt(dim)) + mask
            attention = softmax(scores) @ v
            x = x + self._linear(attention.transpose(1, 0, 2).reshape(count, -1), p + "self_attn.o_proj")
            h = self._norm(x, p + "post_attention_layernorm")
            gate, up = self._linear(h, p + "mlp.gate_proj"), self._linear(h, p + "mlp.up_proj")
            x = x + self._linear(gate / (1 + np.exp(-gate)) * up, p + "mlp.down_proj")
        x = self._norm(x, "model.norm")
        if rows is not None:
            x = x[rows]
        return x @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T

    def _norm(self, x, name):
        mean = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean + np.float32(self.config["rms_norm_eps"])) * self.weights[name + ".weight"]

    def _linear(self, x, name):
        y = x @ self.weights[name + ".weight"].T
        bias = self.weights.get(name + ".bias")
        return y if bias is None else y + bias


def rotate(x, cosines, sines):
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cosines - b * sines, b * cosines + a * sines], axis=-1)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True, dtype=np.float64)).astype(np.float32)


def scale_llama3(frequencies, scaling):
    """Llama 3.1's rule, as its authors published it (models/llama3/reference_impl/model.py, apply_scaling)."""
    if scaling is None:
        return frequencies
    assert scaling["rope_type"] == "llama3"
    scaled = []
    for frequency in frequencies:
        wavelength = 2 * np.pi / frequency
        original = scaling["original_max_position_embeddings"]
        if wavelength < original / scaling["high_freq_factor"]:
            scaled.append(frequency)
        elif wavelength > original / scaling["low_freq_factor"]:
            scaled.append(frequency / scaling["factor"])
        else:
            smooth = (original / wavelength - scaling["low_freq_factor"]) / (
                scaling["high_freq_factor"] - scaling["low_freq_factor"])
            scaled.append((1 - smooth) * frequency / scaling["factor"] + smooth * frequency)
    return np.array(scaled)


# ---- files ----

_HF_NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
_GGUF_NAMES = {hf: gguf for gguf, hf in _HF_NAMES.items()}


def read_gguf(path):
    """(metadata, config, float32 weights) of a Llama in GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""
    data = path.read_bytes()
    at = 0

    def scalar(code):
        nonlocal at
        value, = struct.unpack_from("<" + code, data, at)
        at += struct.calcsize(code)
        return value

    def string():
        nonlocal at
        length = scalar("Q")
        at += length
        return data[at - length:at].decode("utf-8")

    def value(kind):
        if kind == _STRING:
            return string()
        if kind == _ARRAY:
            element = scalar("I")
            return [value(element) for _ in range(scalar("Q"))]
        return scalar(_SCALARS[kind])

    at = 4
    scalar("I")
    num_tensors, num_keys = scalar("Q"), scalar("Q")
    metadata = {string(): value(scalar("I")) for _ in range(num_keys)}
    infos = []
    for _ in range(num_tensors):
        name = string()
        shape = [scalar("Q") for _ in range(scalar("I"))][::-1]
        infos.append((name, shape, GGMLQuantizationType(scalar("I")), scalar("Q")))
    alignment = metadata.get("general.alignment", 32)
    start = (at + alignment - 1) // alignment * alignment
    config = {
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": metadata["llama.attention.head_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "rms_norm_eps": metadata["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": metadata.get("llama.rope.freq_base", 10000.0),
    }
    config["head_dim"] = metadata.get("llama.attention.key_length",
                                      config["hidden_size"] // config["num_attention_heads"])
    weights = {}
    for name, shape, kind, offset in infos:
        row = quants.quant_shape_to_byte_shape(shape, kind)
        size = int(np.prod(row))
        raw = np.frombuffer(data, np.uint8, size, start + offset).reshape(row)
        tensor = dequantize(raw, kind).reshape(shape)
        if ".attn_q." in name or ".attn_k." in name:
            heads = config["num_attention_heads" if "attn_q" in name else "num_key_value_heads"]
            tensor = to_halves(tensor, heads)
        weights[hf_name(name)] = tensor
    return metadata, config, weights


def dequantize(raw, kind):
    if kind == GGMLQuantizationType.F32:
        return raw.view(np.float32)
    if kind == GGMLQuantizationType.F16:
        return raw.view(np.float16).astype(np.float32)
    return quants.dequantize(raw, kind)


def hf_name(name):
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{_HF_NAMES[parts[2]]}.{parts[3]}"
    return f"{_HF_NAMES[parts[0]]}.{parts[1]}"


def gguf_name(name):
    if name.startswith("model.layers."):
        _, _, layer, rest = name.split(".", 3)
        module, kind = rest.rsplit(".", 1)
        return f"blk.{layer}.{_GGUF_NAMES[module]}.{kind}"
    module, kind = name.rsplit(".", 1)
    return f"{_GGUF_NAMES[module]}.{kind}"


def to_halves(rows, heads):
    """GGUF's rotary pairs (2i, 2i + 1) → Hugging Face's (i, i + dim / 2)."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def to_interleaved(rows, heads):
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def random_llama(seed, *, layers=2, hidden=256, intermediate=352, heads=8, kv_heads=1, head_dim=64, vocabulary=320,
                 tied=False, bias=False, rope_scaling=None):
    """(config, weights): large enough in the weights that the best token is often clear."""
    random = np.random.default_rng(seed)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": head_dim, "vocab_size": vocabulary, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "max_position_embeddings": 2048, "tie_word_embeddings": tied, "attention_bias": bias,
        "hidden_act": "silu", "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": 2,
    }
    if rope_scaling:
        config["rope_scaling"] = rope_scaling

    def matrix(rows, columns, gain=1.0):
        return (random.standard_normal((rows, columns)) * gain / np.sqrt(columns)).astype(np.float32)

    weights = {"model.embed_tokens.weight": random.standard_normal((vocabulary, hidden)).astype(np.float32)}
    for i in range(layers):
        p = f"model.layers.{i}."
        sizes = {"q": heads * head_dim, "k": kv_heads * head_dim, "v": kv_heads * head_dim}
        for name, rows in sizes.items():
            weights[f"{p}self_attn.{name}_proj.weight"] = matrix(rows, hidden, 1.5)
            if bias:
                weights[f"{p}self_attn.{name}_proj.bias"] = random.standard_normal(rows).astype(np.float32)
        weights[p + "self_attn.o_proj.weight"] = matrix(hidden, heads * head_dim)
        if bias:
            weights[p + "self_attn.o_proj.bias"] = random.standard_normal(hidden).astype(np.float32)
        weights[p + "mlp.gate_proj.weight"] = matrix(intermediate, hidden)
        weights[p + "mlp.up_proj.weight"] = matrix(intermediate, hidden)
        weights[p + "mlp.down_proj.weight"] = matrix(hidden, intermediate)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{p}{name}.weight"] = (1 + 0.1 * random.standard_normal(hidden)).astype(np.float32)
    weights["model.norm.weight"] = (1 + 0.1 * random.standard_normal(hidden)).astype(np.float32)
    if not tied:
        weights["lm_head.weight"] = matrix(vocabulary, hidden, 2.0)
    return config, weights


def write_safetensors(directory, config, weights, kind):
    """A Hugging Face directory; returns the weights as they are stored. kind: "F32", "F16" or "BF16"."""
    stored, blobs, header, offset = {}, [], {}, 0
    for name, tensor in weights.items():
        blob, stored[name] = encode_plain(tensor, kind)
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    head = json.dumps(header).encode()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + b"".join(blobs))
    return stored


def encode_plain(tensor, kind):
    if kind == "F32":
        return tensor.astype("<f4").tobytes(), tensor
    if kind == "F16":
        half = tensor.astype(np.float16)
        return half.tobytes(), half.astype(np.float32)
    bits = tensor.view(np.uint32)
    bits = ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return bits.tobytes(), (bits.astype(np.uint32) << 16).view(np.float32)


_FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # llama.cpp's, for rows that do not divide by 256


def write_gguf(path, config, weights, kind):
    """A GGUF file with matrices of `kind`; returns the weights as they are stored."""
    stored, tensors = {}, []
    for name, tensor in weights.items():
        if "q_proj" in name or "k_proj" in name:
            heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
            tensor = to_interleaved(tensor, heads)
        row_kind = _FALLBACK[kind] if kind in _FALLBACK and tensor.shape[-1] % 256 else kind
        tensor_kind = GGMLQuantizationType[row_kind if tensor.ndim == 2 else "F32"]
        if tensor_kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16):
            blob, values = encode_plain(np.ascontiguousarray(tensor), tensor_kind.name)
        else:
            super_block = tensor_kind.name in _FALLBACK
            raw = k_quants.quantize(tensor, row_kind) if super_block else quants.quantize(tensor, tensor_kind)
            blob, values = raw.tobytes(), quants.dequantize(raw, tensor_kind)
        if "q_proj" in name or "k_proj" in name:
            values = to_halves(values, heads)
        stored[name] = values
        tensors.append((gguf_name(name), tensor.shape, tensor_kind, blob))
    if config.get("rope_scaling"):
        dim = config["head_dim"]
        plain = config["rope_theta"] ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)
        factors = (plain / scale_llama3(plain, config["rope_scaling"])).astype(np.float32)
        tensors.append(("rope_freqs.weight", factors.shape, GGMLQuantizationType.F32, factors.tobytes()))
    path.write_bytes(gguf_bytes(config, tensors))
    return stored


def gguf_bytes(config, tensors):
    def string(text):
        return struct.pack("<Q", len(text.encode())) + text.encode()

    def key(name, code, value):
        kinds = {"I": 4, "f": 6}
        return string(name) + struct.pack("<I" + code, kinds[code], value)

    vocabulary = config["vocab_size"]
    keys = [
        string("general.architecture") + struct.pack("<I", _STRING) + string("llama"),
        key("llama.block_count", "I", config["num_hidden_layers"]),
        key("llama.context_length", "I", config["max_position_embeddings"]),
        key("llama.embedding_length", "I", config["hidden_size"]),
        key("llama.feed_forward_length", "I", config["intermediate_size"]),
        key("llama.attention.head_count", "I", config["num_attention_heads"]),
        key("llama.attention.head_count_kv", "I", config["num_key_value_heads"]),
        key("llama.attention.key_length", "I", config["head_dim"]),
        key("llama.attention.value_length", "I", config["head_dim"]),
        key("llama.rope.dimension_count", "I", config["head_dim"]),
        key("llama.attention.layer_norm_rms_epsilon", "f", config["rms_norm_eps"]),
        key("llama.rope.freq_base", "f", config["rope_theta"]),
        key("llama.vocab_size", "I", vocabulary),
        string("tokenizer.ggml.model") + struct.pack("<I", _STRING) + string("gpt2"),
        string("tokenizer.ggml.pre") + struct.pack("<I", _STRING) + string("smollm"),
        string("tokenizer.ggml.tokens") + struct.pack("<IIQ", _ARRAY, _STRING, vocabulary) +
        b"".join(string(f"t{i}") for i in range(vocabulary)),
        string("tokenizer.ggml.token_type") + struct.pack("<IIQ", _ARRAY, 5, vocabulary) +
        struct.pack(f"<{vocabulary}i", *[1] * vocabulary),
        string("tokenizer.ggml.merges") + struct.pack("<IIQ", _ARRAY, _STRING, 1) + string("t 1"),
        key("tokenizer.ggml.bos_token_id", "I", 1),
        key("tokenizer.ggml.eos_token_id", "I", 2),
    ]
    infos, data = [], b""
    for name, shape, kind, blob in tensors:
        data += b"\0" * (-len(data) % 32)
        infos.append(string(name) + struct.pack("<I", len(shape)) +
                     struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", kind, len(data)))
        data += blob
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(keys)) + b"".join(keys) + b"".join(infos)
    return head + b"\0" * (-len(head) % 32) + data

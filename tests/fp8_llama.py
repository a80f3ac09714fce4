"""Small random Llamas as Hugging Face directories in every FP8 form, and in BF16. Needs numpy alone:

    python3 fp8_llama.py FORM DIRECTORY

FORM: fp8-dynamic, fp8-static (both as compressed-tensors writes them, with scales of K and V), modelopt, bf16.
Their K and V are far from E4M3's range in some layers, so that a scale that is left out cannot go unnoticed, and static
scales let a few activations saturate.
"""

import json
import pathlib
import struct
import sys

import numpy as np

FORMS = ["fp8-dynamic", "fp8-static", "modelopt", "bf16"]
E4M3_LARGEST = 448.0
K_GAINS, V_GAINS = [2000.0, 1.0, 5e-4, 40.0], [5e-4, 3000.0, 1.0, 6.0]  # of layers, in turn
SHARE = 0.1  # of what attention and MLP add to the residual stream, against it


def to_e4m3(x):
    """Codes of OCP's E4M3: to nearest, ties to even, saturating."""
    magnitude = np.minimum(np.abs(x.astype(np.float64)), E4M3_LARGEST)
    exponent = np.where(magnitude > 0, np.maximum(np.frexp(magnitude)[1] - 1, -6), -6)
    steps = np.rint(magnitude / np.exp2(exponent - 3.0)).astype(np.int64)  # of the number's own binade; 16 is the next
    code = (exponent + 6) * 8 + steps
    return (code | np.where(np.signbit(x), 0x80, 0)).astype(np.uint8)


def from_e4m3(codes):
    magnitude = (codes & 0x7f).astype(np.int64)
    exponent, mantissa = magnitude >> 3, magnitude & 7
    value = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * np.exp2(exponent - 10.0))
    return np.where(codes & 0x80, -value, value).astype(np.float32)


def to_bf16(x):
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def make(form, seed=1, *, layers=None, hidden=1024, intermediate=1024, heads=8, kv_heads=1, head_dim=128,
         vocabulary=1024):
    """(config, hf_quant_config or None, {name: (type, array)}); at most 30 MB as they are."""
    random = np.random.default_rng(seed)
    layers = layers or (2 if form == "bf16" else 4)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": head_dim, "vocab_size": vocabulary, "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0, "max_position_embeddings": 2048, "tie_word_embeddings": False, "attention_bias": False,
        "hidden_act": "silu", "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 1,
    }
    tensors = {}

    def matrix(rows, columns, gain):
        return (random.standard_normal((rows, columns)) * gain / np.sqrt(columns)).astype(np.float32)

    def linear(name, rows, columns, gain, input_largest):
        weight = matrix(rows, columns, gain)
        if form == "bf16":
            tensors[name + ".weight"] = ("BF16", to_bf16(weight))
            return
        peak = np.abs(weight).max(axis=1, keepdims=True) if form == "fp8-dynamic" else np.abs(weight).max()
        scale = (peak / E4M3_LARGEST).astype(np.float32)
        tensors[name + ".weight"] = ("F8_E4M3", to_e4m3(weight / scale))
        if form == "fp8-dynamic":  # llm-compressor stores BF16
            tensors[name + ".weight_scale"] = ("BF16", to_bf16(scale))
            return
        shape = () if form == "modelopt" else (1,)
        # Projections of one input may have been calibrated apart.
        spread = 1 + 0.1 * random.random() if form == "modelopt" else 1.0
        tensors[name + ".weight_scale"] = ("F32", scale.reshape(shape))
        input_scale = np.float32(input_largest * spread / E4M3_LARGEST)
        tensors[name + ".input_scale"] = ("F32", input_scale.reshape(shape))

    def norm(name):
        tensors[name + ".weight"] = ("BF16", to_bf16(1 + 0.1 * random.standard_normal(hidden)))

    tensors["model.embed_tokens.weight"] = ("BF16", to_bf16(random.standard_normal((vocabulary, hidden))))
    for i in range(layers):
        prefix = f"model.layers.{i}."
        k_gain, v_gain = K_GAINS[i % 4], V_GAINS[i % 4]
        attention = prefix + "self_attn."
        norm(prefix + "input_layernorm")
        norm(prefix + "post_attention_layernorm")
        linear(attention + "q_proj", heads * head_dim, hidden, 2.0 / k_gain, 2.5)  # scores of about 2
        linear(attention + "k_proj", kv_heads * head_dim, hidden, k_gain, 2.5)
        linear(attention + "v_proj", kv_heads * head_dim, hidden, v_gain, 2.5)
        linear(attention + "o_proj", hidden, heads * head_dim, 2 * SHARE / v_gain, 2.5 * v_gain)
        linear(prefix + "mlp.gate_proj", intermediate, hidden, 1.0, 2.5)
        linear(prefix + "mlp.up_proj", intermediate, hidden, 1.0, 2.5)
        linear(prefix + "mlp.down_proj", hidden, intermediate, 2 * SHARE, 3.0)
        if form == "bf16":
            continue
        for letter, gain in (("k", k_gain), ("v", v_gain)):
            scale = np.float32(4.0 * gain / E4M3_LARGEST)
            name, shape = (f"{letter}_proj.{letter}_scale", ()) if form == "modelopt" else (f"{letter}_scale", (1,))
            tensors[attention + name] = ("F32" if form == "modelopt" else "BF16",
                                         scale.reshape(shape) if form == "modelopt" else to_bf16(scale.reshape(shape)))
    norm("model.norm")
    tensors["lm_head.weight"] = ("BF16", to_bf16(matrix(vocabulary, hidden, 2.0)))
    quantization = quantization_config(form)
    if form == "modelopt":
        return config, quantization, tensors
    if quantization:
        config["quantization_config"] = quantization
    return config, None, tensors


def quantization_config(form):
    number = {"num_bits": 8, "type": "float", "symmetric": True}
    if form == "bf16":
        return None
    if form == "modelopt":
        return {"producer": {"name": "modelopt", "version": "0.29.0"},
                "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    dynamic = form == "fp8-dynamic"
    return {
        "quant_method": "compressed-tensors", "format": "float-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {
            "targets": ["Linear"], "output_activations": None,
            "weights": {**number, "strategy": "channel" if dynamic else "tensor", "dynamic": False},
            "input_activations": {**number, "strategy": "token" if dynamic else "tensor", "dynamic": dynamic}}},
        "kv_cache_scheme": {**number, "strategy": "tensor", "dynamic": False},
    }


def write(directory, config, quantization, tensors):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    if quantization:
        (directory / "hf_quant_config.json").write_text(json.dumps(quantization))
    header, blobs, offset = {}, [], 0
    for name, (kind, array) in tensors.items():
        blob = array.tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    head = json.dumps(header).encode()
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + b"".join(blobs))


def as_floats(kind, array):
    if kind == "F8_E4M3":
        return from_e4m3(array)
    if kind == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in FORMS:
        sys.exit(__doc__)
    write(pathlib.Path(sys.argv[2]), *make(sys.argv[1]))

"""Model files as Baton reads them, against the reference readers: gguf and safetensors, and numpy for RoPE scaling."""
import json
import math
import pathlib
import subprocess

import gguf
import numpy as np
import pytest
import safetensors.numpy


@pytest.fixture(scope="session")
def oracle(build_dir) -> pathlib.Path:
    return build_dir / "tests" / "model_oracle"


def run(oracle, *arguments, data=b""):
    return subprocess.run([str(oracle), *map(str, arguments)], input=data, capture_output=True, timeout=120)


def load(oracle, *arguments) -> dict:
    result = run(oracle, "load", *arguments)
    assert result.returncode == 0, result.stderr.decode()
    return json.loads(result.stdout)


def refusal(oracle, *arguments) -> str:
    result = run(oracle, "load", *arguments)
    assert result.returncode == 1, (result.returncode, result.stderr.decode())
    return result.stderr.decode()


def checksum(data: bytes) -> str:
    """As the oracle's: the polynomial of the words of 8 bytes at FNV's prime, modulo 2^64, first word highest."""
    words = np.frombuffer(data + bytes(-len(data) % 8), dtype="<u8")
    powers = np.full(len(words), 0x100000001B3, dtype=np.uint64)
    powers[0] = 1
    powers = np.multiply.accumulate(powers)  # wraps around
    return f"{int(np.sum(words * powers[::-1], dtype=np.uint64)):016x}"


# ---- GGUF: the demo model ----

HF_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def hf_name(name: str) -> str:
    whole = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
             "output.weight": "lm_head.weight"}
    if name in whole:
        return whole[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{HF_NAMES[part]}.{kind}"


@pytest.fixture(scope="module")
def demo(oracle, demo_model):
    return load(oracle, demo_model), gguf.GGUFReader(str(demo_model))


def test_demo_config(demo):
    ours, reader = demo
    key = lambda name: reader.fields[name].contents()
    config = ours["config"]
    assert config["architecture"] == "LlamaForCausalLM" and key("general.architecture") == "llama"
    assert config["num_layers"] == key("llama.block_count")
    assert config["hidden_size"] == key("llama.embedding_length")
    assert config["intermediate_size"] == key("llama.feed_forward_length")
    assert config["num_heads"] == key("llama.attention.head_count")
    assert config["num_kv_heads"] == key("llama.attention.head_count_kv")
    assert config["head_dim"] == key("llama.rope.dimension_count")
    assert config["vocabulary"] == key("llama.vocab_size")
    assert config["max_position"] == key("llama.context_length")
    assert config["rms_norm_epsilon"] == pytest.approx(key("llama.attention.layer_norm_rms_epsilon"))
    assert config["rope_theta"] == key("llama.rope.freq_base")
    head_dim = config["head_dim"]
    expected = config["rope_theta"] ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    np.testing.assert_allclose(config["rope_inverse_frequencies"], expected, rtol=1e-6)
    assert config["rope_interleaved"] and config["tie_embeddings"] and not config["attention_bias"]


def test_demo_tensors(demo):
    ours, reader = demo
    tensors = dict(ours["tensors"])
    assert tensors.pop("lm_head.weight") == tensors["model.embed_tokens.weight"]
    assert set(tensors) == {hf_name(tensor.name) for tensor in reader.tensors}
    for tensor in reader.tensors:
        assert tensors[hf_name(tensor.name)] == {
            "shape": [int(extent) for extent in reversed(tensor.shape)],
            "dtype": tensor.tensor_type.name,
            "checksum": checksum(tensor.data.tobytes()),
        }, tensor.name
    assert ours["weight_bytes"] == sum(int(tensor.n_bytes) for tensor in reader.tensors)


def test_demo_tokenizer(demo):
    ours, reader = demo
    key = lambda name: reader.fields["tokenizer." + name].contents()
    data = ours["tokenizer"]
    assert data["tokens"] == key("ggml.tokens")
    assert [" ".join(pair) for pair in data["merges"]] == key("ggml.merges")
    control, user_defined = gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED
    assert data["added_tokens"] == [[i, data["tokens"][i], kind == control]
                                    for i, kind in enumerate(key("ggml.token_type")) if kind in (control, user_defined)]
    assert data["preset"] == key("ggml.pre")
    assert data["bos"] == key("ggml.bos_token_id")
    assert data["eos"] == [key("ggml.eos_token_id")] == ours["config"]["eos"]
    assert data["chat_template"] == key("chat_template")
    assert data["add_bos"] == key("ggml.add_bos_token")
    assert data["eos_token"] == data["tokens"][key("ggml.eos_token_id")]
    assert data["unk_token"] == data["tokens"][key("ggml.unknown_token_id")]


# ---- every block type ----

QUANTIZABLE = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]
RANDOM_BLOCKS = ["Q4_K", "Q5_K", "Q6_K"]  # gguf cannot quantize to these


def half_offsets(name: str) -> list[int]:
    return {"Q6_K": [208]}.get(name, [0, 2])


def random_blocks(name: str, count: int) -> np.ndarray:
    """Any bytes are a block, but for its scales, which should be ordinary numbers."""
    random = np.random.default_rng(7)
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][1]
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    for offset in half_offsets(name):
        blocks[:, offset:offset + 2] = random.normal(0, 0.1, (count, 1)).astype(np.float16).view(np.uint8)
    return blocks.reshape(1, -1)


@pytest.mark.parametrize("name", QUANTIZABLE + RANDOM_BLOCKS)
def test_dequantize(oracle, name):
    kind = gguf.GGMLQuantizationType[name]
    if name in RANDOM_BLOCKS:
        encoded = random_blocks(name, 64)
    else:
        values = np.random.default_rng(3).normal(0, 1, (16, 512)).astype(np.float32)
        encoded = gguf.quants.quantize(values, kind)
    expected = gguf.quants.dequantize(encoded, kind).astype(np.float32).reshape(-1)
    result = run(oracle, "dequantize", name, data=encoded.tobytes())
    assert result.returncode == 0, result.stderr.decode()
    ours = np.frombuffer(result.stdout, dtype=np.float32)
    # The reference multiplies in the same order: the same bits.
    np.testing.assert_array_equal(ours, expected)


# ---- Hugging Face directories ----

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6, "rope_theta": 500000.0, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}


def make_tensors(config: dict) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    hidden, middle = config["hidden_size"], config["intermediate_size"]
    head_dim = hidden // config["num_attention_heads"]
    key_value = head_dim * config["num_key_value_heads"]
    bias = config["architectures"] == ["Qwen2ForCausalLM"]
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for name, shape in {
            "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (key_value, hidden),
            "self_attn.v_proj": (key_value, hidden), "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (middle, hidden), "mlp.up_proj": (middle, hidden), "mlp.down_proj": (hidden, middle),
        }.items():
            shapes[f"{prefix}{name}.weight"] = shape
            if bias and name[-6:] in ("q_proj", "k_proj", "v_proj"):
                shapes[f"{prefix}{name}.bias"] = shape[:1]
        shapes[prefix + "input_layernorm.weight"] = shapes[prefix + "post_attention_layernorm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return {name: random.normal(0, 1, shape).astype(np.float16) for name, shape in shapes.items()}


def write_model(path: pathlib.Path, config: dict, tensors: dict[str, np.ndarray], shards: int = 1) -> pathlib.Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if shards == 1:
        safetensors.numpy.save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        return path
    where = {}
    for shard in range(shards):
        part = dict(list(tensors.items())[shard::shards])
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        safetensors.numpy.save_file(part, path / name)
        where |= dict.fromkeys(part, name)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return path


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"])
def test_hugging_face_directory(oracle, tmp_path, architecture, tied, shards):
    config = CONFIG | {"architectures": [architecture], "tie_word_embeddings": tied}
    tensors = make_tensors(config)
    path = write_model(tmp_path / "model", config, tensors, shards)
    (path / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "top_p": 0.9, "eos_token_id": [2, 7]}))
    ours = load(oracle, path)
    assert ours["name"] == "model" and ours["directory"] == str(path) and ours["tokenizer"] is None
    assert ours["config"]["eos"] == [2, 7]
    assert ours["generation"]["temperature"] == pytest.approx(0.6) and ours["generation"]["top_k"] is None
    assert not ours["config"]["rope_interleaved"]
    expected = {name: {"shape": list(array.shape), "dtype": "F16", "checksum": checksum(array.tobytes())}
                for name, array in tensors.items()}
    if tied:
        expected["lm_head.weight"] = expected["model.embed_tokens.weight"]
    assert ours["tensors"] == expected
    assert ours["weight_bytes"] == sum(array.nbytes for array in tensors.values())


def test_fingerprint_is_of_contents_not_of_files(oracle, tmp_path):
    tensors = make_tensors(CONFIG)
    one = load(oracle, write_model(tmp_path / "one", CONFIG, tensors))
    many = load(oracle, write_model(tmp_path / "many", CONFIG, tensors, shards=3))
    assert one["fingerprint"] == many["fingerprint"] and len(one["fingerprint"]) == 32
    tensors["model.norm.weight"][-1] += 1
    other = load(oracle, write_model(tmp_path / "other", CONFIG, tensors))
    assert other["fingerprint"] != one["fingerprint"]


def test_bad_directories_are_refused_by_name(oracle, tmp_path):
    tensors = make_tensors(CONFIG)
    name = "model.layers.1.mlp.up_proj.weight"
    missing = {key: array for key, array in tensors.items() if key != name}
    assert f"'{name}' [96, 64] is missing" in refusal(oracle, write_model(tmp_path / "a", CONFIG, missing))
    wrong = tensors | {name: tensors[name].T.copy()}
    assert "expected the shape [96, 64], found [64, 96] F16" in refusal(oracle, write_model(tmp_path / "b", CONFIG, wrong))
    more = tensors | {"model.layers.1.mlp.up_proj.bias": tensors["model.norm.weight"]}
    assert "unexpected tensor 'model.layers.1.mlp.up_proj.bias'" in refusal(oracle, write_model(tmp_path / "c", CONFIG, more))
    integers = tensors | {"model.norm.weight": np.zeros(64, dtype=np.int8)}
    assert "'model.norm.weight' has type 'I8'" in refusal(oracle, write_model(tmp_path / "d", CONFIG, integers))
    path = write_model(tmp_path / "e", CONFIG, tensors)
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[:-1])
    assert "is the download complete?" in refusal(oracle, path)


# ---- FP8 ----

FP8 = {"num_bits": 8, "type": "float", "symmetric": True}
FP8_DYNAMIC = {
    "quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"],
    "config_groups": {"group_0": {
        "targets": ["Linear"], "weights": FP8 | {"strategy": "channel", "dynamic": False},
        "input_activations": FP8 | {"strategy": "token", "dynamic": True}}},
}


def save_fp8(path: pathlib.Path, tensors: dict[str, np.ndarray], scale_shape, input_scales: bool, kv_name=None):
    """numpy has no FP8, so its bytes are written as U8 and the header's type is exchanged."""
    out = {}
    for name, array in tensors.items():
        if "_proj" not in name:
            out[name] = array
            continue
        out[name] = (np.arange(array.size) % 127).astype(np.uint8).reshape(array.shape)
        out[name + "_scale"] = np.full(scale_shape(array), 0.01, dtype=np.float32)
        if input_scales:
            out[name.removesuffix("weight") + "input_scale"] = np.full((), 0.02, dtype=np.float32)
        if kv_name and name.endswith(("k_proj.weight", "v_proj.weight")):
            out[kv_name(name)] = np.full((1,), 0.03, dtype=np.float32)
    data = safetensors.numpy.save(out)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    for entry in header.values():
        entry["dtype"] = entry["dtype"].replace("U8", "F8_E4M3")
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length:])
    return out


def test_fp8_dynamic(oracle, tmp_path):
    config = CONFIG | {"quantization_config": FP8_DYNAMIC}
    tensors = make_tensors(config)
    path = write_model(tmp_path, config, tensors)
    written = save_fp8(path / "model.safetensors", tensors, lambda array: (array.shape[0], 1), False)
    ours = load(oracle, path)
    assert ours["config"]["quantization"] == {"scheme": 1, "method": "compressed-tensors", "ignored": ["lm_head"],
                                              "kv_cache_fp8": False}
    assert set(ours["tensors"]) == set(written)
    name = "model.layers.0.mlp.down_proj.weight"
    assert ours["tensors"][name] == {"shape": [64, 96], "dtype": "F8_E4M3", "checksum": checksum(written[name].tobytes())}
    assert ours["tensors"][name + "_scale"]["shape"] == [64]
    assert ours["tensors"]["lm_head.weight"]["dtype"] == "F16"


def test_modelopt(oracle, tmp_path):
    tensors = make_tensors(CONFIG)
    path = write_model(tmp_path, CONFIG, tensors)
    (path / "hf_quant_config.json").write_text(json.dumps({
        "producer": {"name": "modelopt"},
        "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}))
    save_fp8(path / "model.safetensors", tensors, lambda array: (), True,
             lambda name: name.removesuffix("weight") + name.split(".")[-2][0] + "_scale")
    ours = load(oracle, path)
    assert ours["config"]["quantization"] == {"scheme": 3, "method": "modelopt", "ignored": ["lm_head"],
                                              "kv_cache_fp8": True}
    for name in ("self_attn.k_scale", "self_attn.v_scale", "mlp.up_proj.input_scale", "mlp.up_proj.weight_scale"):
        assert ours["tensors"]["model.layers.1." + name]["shape"] == [1]


# ---- RoPE scaling ----

def llama3_frequencies(head_dim, theta, factor, low, high, original):
    """As Meta and Hugging Face describe it: by wavelength, with a smooth part between the two bounds."""
    frequencies = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    out = []
    for frequency in frequencies:
        wavelength = 2 * math.pi / frequency
        if wavelength < original / high:
            out.append(frequency)
        elif wavelength > original / low:
            out.append(frequency / factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            out.append((1 - smooth) * frequency / factor + smooth * frequency)
    return out


@pytest.mark.parametrize("factor,original,heads", [(8.0, 8192, 4), (32.0, 8192, 1), (8.0, 64, 1)])
def test_llama3_scaling(oracle, tmp_path, factor, original, heads):
    config = CONFIG | {"num_attention_heads": heads, "num_key_value_heads": 1, "rope_scaling": {
        "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": original}}
    ours = load(oracle, write_model(tmp_path, config, make_tensors(config)))
    expected = llama3_frequencies(64 // heads, 500000.0, factor, 1.0, 4.0, original)
    np.testing.assert_allclose(ours["config"]["rope_inverse_frequencies"], expected, rtol=1e-6)


# ---- dummy weights ----

def test_dummy_weights_are_the_same_everywhere(oracle, tmp_path, demo_model):
    config = CONFIG | {"quantization_config": FP8_DYNAMIC}
    path = write_model(tmp_path, config, {"unused": np.zeros(1, dtype=np.float32)})
    first, again, other = (load(oracle, path, "dummy", seed) for seed in (1, 1, 2))
    assert first["tensors"] == again["tensors"] and first["fingerprint"] == again["fingerprint"]
    assert first["fingerprint"] != other["fingerprint"]
    assert first["tensors"]["model.layers.1.mlp.up_proj.weight"]["dtype"] == "F8_E4M3"
    assert first["tensors"]["lm_head.weight"]["dtype"] == "BF16"
    preset, header = load(oracle, "smollm2-135m", "dummy", 1), load(oracle, demo_model, "dummy", 1)
    assert preset["tensors"] == header["tensors"]  # the demo model's shapes

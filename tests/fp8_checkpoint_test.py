"""FP8 checkpoints in every form on the CPU backend, which computes with their weights as BF16 and plain activations; and
what is refused. The same forms on a GPU, layer by layer: tests/gpu/layer_reference.py.
"""

import json
import subprocess

import numpy as np
import pytest

import fp8_llama
import llama_reference as reference
from engine_test import Comparison, run

SMALL = dict(layers=2, hidden=256, intermediate=384, heads=4, kv_heads=1, head_dim=64, vocabulary=320)


def stored_weights(tensors):
    """What the weights are worth, rounded to BF16 as the engine expands them."""
    weights = {}
    for name, (kind, array) in tensors.items():
        if not name.endswith(".weight"):
            continue
        values = fp8_llama.as_floats(kind, array)
        if kind == "F8_E4M3":
            scale = fp8_llama.as_floats(*tensors[name + "_scale"])
            values = fp8_llama.as_floats("BF16", fp8_llama.to_bf16(values * scale))
        weights[name] = values
    return weights


@pytest.mark.parametrize("form", fp8_llama.FORMS)
def test_answers(build_dir, tmp_path, form):
    config, quantization, tensors = fp8_llama.make(form, 5, **SMALL)
    fp8_llama.write(tmp_path / form, config, quantization, tensors)
    random = np.random.default_rng(8)
    requests = [{"tokens": random.integers(0, 320, size).tolist(), "max_tokens": 12} for size in (1, 17, 70)]
    comparison = Comparison(reference.Llama(config, stored_weights(tensors)))
    answers = run(build_dir, tmp_path / form, requests, "isa=avx2", "kv=F32", "threads=2", "chunk=24")
    for request, answer in zip(requests, answers):
        comparison.add(request["tokens"], answer)
    assert comparison.sure > 5 and not comparison.wrong
    assert comparison.mean() <= 2e-3 and np.mean(comparison.prompt_deltas) <= 2e-3


def test_forms_have_fingerprints_of_their_own(build_dir, tmp_path):
    """A scale of K is part of what two workers must agree on before they exchange blocks."""
    fingerprints = []
    for number, factor in enumerate((1.0, 1.0, 2.0)):
        config, quantization, tensors = fp8_llama.make("fp8-static", 5, **SMALL)
        kind, scale = tensors["model.layers.1.self_attn.k_scale"]
        tensors["model.layers.1.self_attn.k_scale"] = (kind, fp8_llama.to_bf16(fp8_llama.as_floats(kind, scale) * factor))
        fp8_llama.write(tmp_path / str(number), config, quantization, tensors)
        described = subprocess.run([build_dir / "tests" / "model_oracle", "load", tmp_path / str(number)], text=True,
                                   capture_output=True, check=True, timeout=60)
        fingerprints.append(json.loads(described.stdout)["fingerprint"])
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


BAD = {
    "input_scale is missing": ("fp8-static", "model.layers.0.mlp.up_proj.input_scale", None, "is missing"),
    "weight_scale is missing": ("fp8-dynamic", "model.layers.1.self_attn.o_proj.weight_scale", None, "is missing"),
    "one k_scale is missing": ("modelopt", "model.layers.1.self_attn.k_proj.k_scale", None, "every layer, or none"),
    "input_scale is NaN": ("modelopt", "model.layers.0.mlp.down_proj.input_scale", np.nan, "expected a positive finite"),
    "input_scale is 0": ("fp8-static", "model.layers.0.mlp.down_proj.input_scale", 0, "expected a positive finite"),
    "v_scale is negative": ("fp8-static", "model.layers.1.self_attn.v_scale", -1, "expected a positive finite"),
    "weight_scale is infinite": ("modelopt", "model.layers.1.self_attn.q_proj.weight_scale", np.inf, "positive finite"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_scales_are_refused_by_name(build_dir, tmp_path, what):
    form, name, value, message = BAD[what]
    config, quantization, tensors = fp8_llama.make(form, 5, **SMALL)
    if value is None:
        del tensors[name]
    else:
        kind, scale = tensors[name]
        bad = np.full(scale.shape, value, np.float32)
        tensors[name] = (kind, fp8_llama.to_bf16(bad) if kind == "BF16" else bad)
    fp8_llama.write(tmp_path / "model", config, quantization, tensors)
    process = subprocess.run([build_dir / "tests" / "engine_oracle", tmp_path / "model"], input="", text=True,
                             capture_output=True, timeout=60)
    assert process.returncode == 1
    assert name.replace("k_proj.k_scale", "k_scale") in process.stderr and message in process.stderr

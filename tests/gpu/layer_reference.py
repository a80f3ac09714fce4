"""Compares what each layer computes on the GPU, and the logits, with the same model in PyTorch, for every FP8 form and
BF16. Needs torch and numpy, a GPU, and layer_oracle beside this file or under build/tests:

    python3 layer_reference.py [FOLDER [CASES]]     (for the models, 26 MB each; CASES as in fp8-static:FP8,bf16:BF16)

The reference rounds where the engine rounds: activations to E4M3 by the same static or dynamic scales, K and V by
theirs, what goes through memory between kernels to BF16, queries to FP16. Left is the order of sums, in whose last bits
the two differ, and that decides now and then which of two neighbours a number is rounded to. Three roundings to E4M3 in
a row make 3 % of a last bit: so each half of a layer is compared from the engine's own input of it, and bounded by
BOUND. Whole runs are compared too; there, the bound is how far apart two references are whose products add in another
order.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch

here = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(here), str(here.parent)]

import fp8_llama  # noqa: E402

BOUND = 5e-3  # ‖difference‖ / ‖reference‖ of the residual stream after a half of a layer, and of logits
LOG2E = 1.44269504
PROMPTS, DECODE = (1, 9, 130, 300), 24  # tokens
DEVICE = "cuda"


def bf16(x):
    return x.to(torch.bfloat16).to(torch.float32)


def e4m3(x):
    return x.clamp(-448, 448).to(torch.float8_e4m3fn).to(torch.float32)


class Reference:
    """`kv`: "FP8" or "BF16". `wrong`: a part to leave out, which must be noticed. `exact`: FP8 products in FP64, and not
    as the tensor cores add."""

    def __init__(self, config, tensors, kv, wrong=None, exact=False):
        self.c, self.kv, self.wrong, self.exact = config, kv, wrong, exact
        self.one = torch.ones((), device=DEVICE)
        self.codes = {name: torch.from_numpy(array).to(DEVICE).view(torch.float8_e4m3fn)
                      for name, (kind, array) in tensors.items() if kind == "F8_E4M3"}
        self.t = {name: torch.from_numpy(np.array(fp8_llama.as_floats(*value))).to(DEVICE)
                  for name, value in tensors.items()}

    def scale(self, name, layer, letter):
        attention = f"model.layers.{layer}.self_attn."
        for found in (f"{attention}{letter}_scale", f"{attention}{letter}_proj.{letter}_scale"):
            if self.kv == "FP8" and found in self.t and self.wrong != name:
                return float(self.t[found].reshape(()))
        return 1.0

    def linear(self, x, names, factor=1.0):
        """Sums in BF16 with the scale of each row and column that are left to whoever reads them."""
        weights = [self.t[name + ".weight"] for name in names]
        weight = torch.cat(weights)
        if names[0] + ".weight_scale" not in self.t:
            return bf16(bf16(x * factor) @ weight.T), torch.ones(len(x), 1, device=DEVICE), 1.0
        channel = torch.cat([self.t[name + ".weight_scale"].reshape(-1).expand(len(w)) for name, w in zip(names, weights)])
        unit = 2.0 ** (int(np.frexp(float(channel.max()))[1]) - 15)
        channel = (channel / unit).to(torch.float16).to(torch.float32)
        inputs = [self.t[name + ".input_scale"] for name in names if name + ".input_scale" in self.t]
        if inputs and self.wrong != "static":
            token = torch.stack([each.reshape(()) for each in inputs]).max().expand(len(x), 1)
        else:
            token = ((x * factor).abs().amax(dim=1, keepdim=True)).clamp(min=1e-10) / 448
        quantized = (x * (factor / token)).clamp(-448, 448).to(torch.float8_e4m3fn)
        if self.exact:
            return bf16((quantized.float().double() @ weight.T.double()).float()), token, channel * unit
        codes = torch.cat([self.codes[name + ".weight"].view(torch.uint8) for name in names]).view(torch.float8_e4m3fn)
        padded = torch.zeros((len(x) + 15) // 16 * 16, x.shape[1], device=DEVICE, dtype=torch.uint8)
        padded[:len(x)] = quantized.view(torch.uint8)
        sums = torch._scaled_mm(padded.view(torch.float8_e4m3fn), codes.t(), scale_a=self.one, scale_b=self.one,
                                out_dtype=torch.bfloat16, use_fast_accum=True)
        return sums[:len(x)].float(), token, channel * unit

    def norm(self, x, name):
        mean = (x * x).mean(dim=1, keepdim=True)
        return x * torch.rsqrt(mean + self.c["rms_norm_eps"]) * self.t[name + ".weight"]

    def rotate(self, x):
        dim = self.c["head_dim"]
        frequencies = (self.c["rope_theta"] ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)).astype(np.float32)
        angles = np.outer(np.arange(len(x), dtype=np.float64), frequencies)
        cosine = torch.from_numpy(np.cos(angles).astype(np.float32)).to(DEVICE)[:, None]
        sine = torch.from_numpy(np.sin(angles).astype(np.float32)).to(DEVICE)[:, None]
        a, b = x[..., :dim // 2], x[..., dim // 2:]
        return torch.cat([a * cosine - b * sine, b * cosine + a * sine], dim=-1)

    def attention(self, h, layer):
        c, p = self.c, f"model.layers.{layer}.self_attn."
        heads, kv_heads, dim = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        sums, token, channel = self.linear(h, [p + "q_proj", p + "k_proj", p + "v_proj"])
        q, k, v = (sums * channel * token).split([heads * dim, kv_heads * dim, kv_heads * dim], dim=1)
        q, k = (self.rotate(x.reshape(len(h), -1, dim)) for x in (q, k))
        v = v.reshape(len(h), -1, dim)
        k_scale, v_scale = self.scale("k_scale", layer, "k"), self.scale("v_scale", layer, "v")
        store = e4m3 if self.kv == "FP8" else bf16
        k, v = store(k * (1 / k_scale)), store(v * (1 / v_scale))
        q = (q * (LOG2E / dim**0.5 * k_scale)).to(torch.float16).to(torch.float32)
        group = heads // kv_heads
        scores = torch.einsum("tgd,sgd->gts", q.double(), k.repeat_interleave(group, dim=1).double())
        mask = torch.full((len(h), len(h)), float("-inf"), device=DEVICE, dtype=torch.float64).triu(1)
        weights = torch.softmax((scores + mask) * np.log(2), dim=-1)
        out = bf16(torch.einsum("gts,sgd->tgd", weights, v.repeat_interleave(group, dim=1).double()).float())
        return self.linear(out.reshape(len(h), -1), [p + "o_proj"], v_scale)

    def mlp(self, h, layer):
        p = f"model.layers.{layer}.mlp."
        sums, token, channel = self.linear(h, [p + "gate_proj", p + "up_proj"])
        gate, up = (sums * channel).chunk(2, dim=1)
        activated = bf16(gate * up / (1 + torch.exp(-gate * token)))
        return self.linear(activated, [p + "down_proj"], token * token)

    def half_layer(self, x, half):
        """What layer half // 2 adds: attention if half is even, else the MLP."""
        part, norm = (self.mlp, "post_attention") if half % 2 else (self.attention, "input")
        sums, token, channel = part(self.norm(x, f"model.layers.{half // 2}.{norm}_layernorm"), half // 2)
        return bf16(x + sums * channel * token)

    def logits(self, x):
        return (bf16(self.norm(x, "model.norm")).double() @ self.t["lm_head.weight"].T.double()).float()

    def embed(self, tokens):
        return self.t["model.embed_tokens.weight"][torch.tensor(tokens, device=DEVICE)]

    def run(self, tokens):
        x = self.embed(tokens)
        for half in range(2 * self.c["num_hidden_layers"]):
            x = self.half_layer(x, half)
        return x


def find(program):
    for folder in (here, here.parents[1] / "build" / "tests"):
        if (folder / program).exists():
            return folder / program
    sys.exit(f"layer_reference.py: {program} is not built; run make where nvcc is found")


def run_engine(model, requests, kv, chunk, own_gemm, out):
    options = [f"kv={kv}", f"chunk={chunk}", f"own_gemm={own_gemm}", f"out={out}"]
    process = subprocess.run([find("layer_oracle"), model, *options], text=True, capture_output=True, timeout=120,
                             input="".join(json.dumps(request) + "\n" for request in requests))
    if process.returncode != 0:
        sys.exit(f"layer_oracle: {process.stderr}")


def error(a, b):
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


class Worst(dict):
    def add(self, key, value):
        self[key] = max(self.get(key, 0.0), value if np.isfinite(value) else float("inf"))


def read(out, config, requests):
    """Of each request: tokens, length of the prompt, [half][token][hidden], logits."""
    halves, hidden, vocabulary = 2 * config["num_hidden_layers"], config["hidden_size"], config["vocab_size"]
    for number, request in enumerate(requests):
        tokens = request["tokens"] + request["force"][:-1]
        raw = torch.from_numpy(np.fromfile(out / f"{number}.f32", np.float32)).to(DEVICE)
        split = halves * len(tokens) * hidden
        yield (tokens, len(request["tokens"]), raw[:split].reshape(halves, len(tokens), hidden),
               raw[split:].reshape(len(request["force"]), vocabulary))


def compare(reference, requests, out):
    """Largest errors of halves of layers and of logits, each from the engine's own input; prefill and decode apart."""
    worst = Worst()
    for tokens, prompt, halves, logits in read(out, reference.c, requests):
        before = reference.embed(tokens)
        for half, got in enumerate(halves):
            wanted = reference.half_layer(before, half)
            name = f"layer {half // 2} {'MLP' if half % 2 else 'attention'}"
            worst.add(f"prefill {name}", error(got[:prompt], wanted[:prompt]))
            worst.add(f"decode {name}", error(got[prompt:], wanted[prompt:]))
            before = got
        wanted = reference.logits(before[prompt - 1:])
        worst.add("prefill logits", error(logits[:1], wanted[:1]))
        worst.add("decode logits", error(logits[1:], wanted[1:]))
    return worst


def compare_runs(reference, exact, requests, out):
    """Whole runs, the last layer and the logits: the engine against the reference, and one reference against the other."""
    worst = Worst()
    for tokens, prompt, halves, logits in read(out, reference.c, requests):
        wanted, other = reference.run(tokens), exact.run(tokens)
        worst.add("engine", error(halves[-1], wanted))
        worst.add("engine logits", error(logits, reference.logits(wanted[prompt - 1:])))
        worst.add("references", error(other, wanted))
        worst.add("references' logits", error(exact.logits(other[prompt - 1:]), reference.logits(wanted[prompt - 1:])))
    return worst


def text(errors):
    return "  ".join(f"{key} {value:.1e}" for key, value in errors.items())


def check(form, kv, folder, report):
    config, quantization, tensors = fp8_llama.make(form)
    model = folder / form
    if not model.exists():
        fp8_llama.write(model, config, quantization, tensors)
    random = np.random.default_rng(3)
    draw = lambda count: random.integers(0, config["vocab_size"], count).tolist()  # noqa: E731
    requests = [{"tokens": draw(length), "force": draw(DECODE)} for length in PROMPTS]
    failed = False
    reference, exact = Reference(config, tensors, kv), Reference(config, tensors, kv, exact=True)
    for chunk, own_gemm in ((1024, 1), (100, 0)):
        out = folder / f"{form}-{kv}-{chunk}"
        out.mkdir(exist_ok=True)
        run_engine(model, requests, kv, chunk, own_gemm, out)
        worst = compare(reference, requests, out)
        parts = {part: max(v for k, v in worst.items() if k.startswith(part.split()[0]) and k.endswith(part.split()[1]))
                 for part in ("prefill attention", "prefill MLP", "prefill logits", "decode attention", "decode MLP",
                              "decode logits")}
        runs = compare_runs(reference, exact, requests, out)
        over = {key: value for key, value in worst.items() if not value <= BOUND}
        for what in ("engine", "engine logits"):
            if not runs[what] <= max(BOUND, 1.5 * runs[what.replace("engine", "references'" if " " in what else "references")]):
                over["whole run: " + what] = runs[what]
        failed = failed or bool(over)
        print(f"{form:12} KV {kv:4} chunk {chunk:4}  {text(parts)}\n    whole runs: {text(runs)}"
              + (f"\n    TOO FAR: {text(over)}" if over else ""), flush=True)
        report[f"{form} {kv} {chunk}"] = {**worst, **runs}
    # The bounds notice what they are for: a reference without a part is far away.
    wrong = ["k_scale", "v_scale"] if kv == "FP8" and form != "bf16" else []
    wrong += ["static"] if form in ("fp8-static", "modelopt") else []
    for part in wrong:
        seen = max(compare(Reference(config, tensors, kv, part), requests, out).values())
        print(f"    without {part}: {seen:.1e}" + ("" if seen > 2 * BOUND else "  NOT NOTICED"), flush=True)
        failed = failed or seen <= 2 * BOUND
    return not failed


def main():
    torch.backends.cuda.matmul.allow_tf32 = False
    cases = ["fp8-dynamic:FP8", "fp8-static:FP8", "modelopt:FP8", "fp8-dynamic:BF16", "bf16:BF16"]
    if len(sys.argv) > 2:
        cases = sys.argv[2].split(",")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        report = {}
        good = [check(*case.split(":"), folder, report) for case in cases]
        if len(sys.argv) > 1:
            (folder / "layers.json").write_text(json.dumps(report, indent=1))
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()

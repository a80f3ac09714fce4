"""The engine against an independent float32 Llama in numpy: same tokens wherever the reference is sure of them."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tokenizers

import llama_reference as reference

MAX_TOKENS = 16
GPU_ANSWERS = pathlib.Path(__file__).parent / "gpu" / "demo_answers.json"

TEXTS = [
    "The capital of France is", "Once upon a time, in a small village by the sea, there lived",
    "Water boils at a temperature of", "The three primary colors are", "In 1969, Neil Armstrong",
    "Photosynthesis is the process by which", "The quick brown fox jumps over the lazy dog. The dog",
    "To be, or not to be, that is the", "The Pythagorean theorem states that", "My favourite recipe for bread begins with",
    "Albert Einstein was born in", "The largest planet of the solar system is", "1, 2, 3, 5, 8, 13, 21,",
    "Dear Sir or Madam, I am writing to", "The difference between a virus and a bacterium is",
    "La capitale de la France est", "Il était une fois, dans un petit village,", "Der schnellste Weg, eine Sprache zu lernen, ist",
    "Die Hauptstadt von Deutschland heißt", "El agua hierve a", "Érase una vez en un pueblo pequeño",
    "A capital do Brasil é", "Столица России —", "La pizza è nata a", "日本の首都は", "中国的首都是", "Ankara, Türkiye'nin",
    "Stolica Polski to", "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "#include <iostream>\n\nint main() {\n", "SELECT name, age FROM users WHERE", "for (let i = 0; i < 10; i++) {\n  console.",
    "import numpy as np\n\nx = np.array([1, 2, 3])\n", "public class Main {\n    public static void", "<html>\n<head>\n<title>",
    "{\"name\": \"Alice\", \"age\": 30, \"city\":",
]
CHATS = ["What is the capital of Italy?", "Write a haiku about rain.", "Explain gravity to a child in two sentences.",
         "Translate 'good morning' into Spanish.", "What is 12 + 30?", "List three uses of a hammer."]


def run(build_dir, model, prompts, *options):
    """One answer for each request, from one engine process."""
    lines = "".join(json.dumps(prompt) + "\n" for prompt in prompts)
    process = subprocess.run([build_dir / "tests" / "engine_oracle", model, *options], input=lines, text=True,
                             capture_output=True, timeout=300)
    if "this machine does not have it" in process.stderr:
        pytest.skip(process.stderr)
    assert process.returncode == 0, process.stderr
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    assert len(answers) == len(prompts)
    return answers


class Comparison:
    """Collects, over answers, how the engine's choices stand against the reference's logits for the same prefix."""

    def __init__(self, llama):
        self.llama = llama
        self.deltas, self.prompt_deltas, self.sure, self.wrong = [], [], 0, []

    def add(self, prompt, answer, margin=0.5, scored=100):
        """`scored`: how many prompt tokens' log-probabilities are compared, the last ones."""
        tokens = prompt + answer["tokens"]
        first = max(len(prompt) - 1 - scored, 0)
        logprobs = reference.log_softmax(self.llama.logits(tokens[:-1], slice(first, None)))
        for i in range(first + 1, len(prompt)):
            self.prompt_deltas.append(abs(logprobs[i - 1 - first, prompt[i]] - answer["prompt_logprobs"][i - 1]))
        for i, token in enumerate(answer["tokens"]):
            row = logprobs[len(prompt) - 1 - first + i]
            best, second = np.argsort(row)[-2:][::-1]
            self.deltas.append(abs(row[answer["top"][i][0][0]] - answer["top"][i][0][1]))
            if row[best] - row[second] > margin:
                self.sure += 1
                if answer["top"][i][0][0] != best:
                    self.wrong.append((i, int(best), token, float(row[best] - row[second])))

    def mean(self):
        return float(np.mean(self.deltas))


@pytest.fixture(scope="session")
def demo(demo_model):
    return load_demo(demo_model)


def load_demo(demo_model):
    metadata, config, weights = reference.read_gguf(demo_model)
    vocabulary = {token: i for i, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Digits(individual_digits=True),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    chat = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n" \
           "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    prompts = [bpe.encode(text).ids for text in TEXTS + [chat.format(question) for question in CHATS]]
    return reference.Llama(config, weights), prompts, bpe


@pytest.fixture(scope="session")
def demo_answers(demo, build_dir, demo_model):
    requests = [{"tokens": prompt, "max_tokens": MAX_TOKENS} for prompt in demo[1]]
    return requests, run(build_dir, demo_model, requests, "threads=2")


def test_demo_model_chooses_the_reference_s_tokens(demo, demo_answers):
    llama, prompts, _ = demo
    assert len(prompts) >= 40
    comparison = Comparison(llama)
    for prompt, answer in zip(prompts, demo_answers[1]):
        comparison.add(prompt, answer, scored=2)
    print(f"{comparison.sure} sure tokens, mean |Δ logprob| {comparison.mean():.4f}, "
          f"of prompts {np.mean(comparison.prompt_deltas):.4f}")
    assert comparison.sure > 300
    assert not comparison.wrong
    assert comparison.mean() <= 0.05


@pytest.mark.parametrize("options", [("threads=1", "chunk=7", "block_size=8"), ("threads=3", "chunk=33", "block_size=128"),
                                     ("threads=2", "chunk=1", "block_size=1")], ids=lambda options: ",".join(options))
def test_chunks_threads_and_blocks_change_no_bit(demo_answers, build_dir, demo_model, options):
    requests, expected = demo_answers
    some = slice(0, None, 7)
    assert run(build_dir, demo_model, requests[some], *options) == expected[some]


def test_answers_that_gpus_are_compared_with(demo, build_dir, demo_model):
    """tests/gpu/demo_answers.json is what this backend says: the sure tokens, whatever the instruction set."""
    cases = json.loads(GPU_ANSWERS.read_text())
    assert [case["prompt"] for case in cases] == gpu_prompts(demo)
    requests = [{"tokens": case["prompt"], "force": case["tokens"]} for case in cases]
    sure = 0
    for case, answer in zip(cases, run(build_dir, demo_model, requests, "threads=2")):
        for token, margin, top in zip(case["tokens"], case["margins"], answer["top"]):
            sure += margin > 0.5
            assert margin <= 0.5 or top[0][0] == token
    assert sure > 100


def gpu_prompts(demo):
    return demo[1][::3] + [demo[2].encode(PERPLEXITY_TEXT).ids[:300]]


def write_answers_for_gpus(demo, build_dir, demo_model):
    """Makes that file anew, after a change of the model or of the prompts: python tests/engine_test.py BUILD MODEL"""
    requests = [{"tokens": prompt, "max_tokens": MAX_TOKENS} for prompt in gpu_prompts(demo)]
    cases = [{"prompt": request["tokens"], "tokens": answer["tokens"],
              "margins": [round(best[1] - second[1], 3) for best, second in answer["top"]]}
             for request, answer in zip(requests, run(build_dir, demo_model, requests, "threads=2"))]
    GPU_ANSWERS.write_text("[" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "]\n")


# Part of chapter 1 of "Alice's Adventures in Wonderland" (Lewis Carroll, 1865; public domain).
PERPLEXITY_TEXT = """\
Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or twice \
she had peeped into the book her sister was reading, but it had no pictures or conversations in it, "and what is the use \
of a book," thought Alice "without pictures or conversations?"

So she was considering in her own mind (as well as she could, for the hot day made her feel very sleepy and stupid), \
whether the pleasure of making a daisy-chain would be worth the trouble of getting up and picking the daisies, when \
suddenly a White Rabbit with pink eyes ran close by her.

There was nothing so very remarkable in that; nor did Alice think it so very much out of the way to hear the Rabbit say \
to itself, "Oh dear! Oh dear! I shall be late!" (when she thought it over afterwards, it occurred to her that she ought \
to have wondered at this, but at the time it all seemed quite natural); but when the Rabbit actually took a watch out of \
its waistcoat-pocket, and looked at it, and then hurried on, Alice started to her feet, for it flashed across her mind \
that she had never before seen a rabbit with either a waistcoat-pocket, or a watch to take out of it, and burning with \
curiosity, she ran across the field after it, and fortunately was just in time to see it pop down a large rabbit-hole \
under the hedge.

In another moment down went Alice after it, never once considering how in the world she was to get out again.

The rabbit-hole went straight on like a tunnel for some way, and then dipped suddenly down, so suddenly that Alice had \
not a moment to think about stopping herself before she found herself falling down a very deep well.

Either the well was very deep, or she fell very slowly, for she had plenty of time as she went down to look about her and \
to wonder what was going to happen next. First, she tried to look down and make out what she was coming to, but it was \
too dark to see anything; then she looked at the sides of the well, and noticed that they were filled with cupboards and \
book-shelves; here and there she saw maps and pictures hung upon pegs. She took down a jar from one of the shelves as \
she passed; it was labelled "ORANGE MARMALADE", but to her great disappointment it was empty: she did not like to drop \
the jar for fear of killing somebody underneath, so managed to put it into one of the cupboards as she fell past it.

"Well!" thought Alice to herself, "after such a fall as this, I shall think nothing of tumbling down stairs! How brave \
they'll all think me at home! Why, I wouldn't say anything about it, even if I fell off the top of the house!" (Which \
was very likely true.)

Down, down, down. Would the fall never come to an end? "I wonder how many miles I've fallen by this time?" she said \
aloud. "I must be getting somewhere near the centre of the earth. Let me see: that would be four thousand miles down, I \
think--" (for, you see, Alice had learnt several things of this sort in her lessons in the schoolroom, and though this \
was not a very good opportunity for showing off her knowledge, as there was no one to listen to her, still it was good \
practice to say it over) "--yes, that's about the right distance--but then I wonder what Latitude or Longitude I've got \
to?" (Alice had no idea what Latitude was, or Longitude either, but thought they were nice grand words to say.)
"""


@pytest.fixture(scope="session")
def perplexity(demo):
    """(tokens, the reference's perplexity of them)"""
    llama, _, bpe = demo
    tokens = bpe.encode(PERPLEXITY_TEXT).ids
    logprobs = reference.log_softmax(llama.logits(tokens[:-1]))
    return tokens, float(np.exp(-np.mean([row[token] for row, token in zip(logprobs, tokens[1:])])))


@pytest.mark.parametrize("isa", ["auto", "plain"])
@pytest.mark.parametrize("kv", ["F16", "I8"])
def test_perplexity_is_near_the_reference_s(perplexity, build_dir, demo_model, kv, isa):
    tokens, expected = perplexity
    assert len(tokens) > 700
    answer, = run(build_dir, demo_model, [{"tokens": tokens, "max_tokens": 1}], f"kv={kv}", f"isa={isa}", "threads=2")
    found = float(np.exp(-np.mean(answer["prompt_logprobs"])))
    print(f"perplexity {found:.4f}, reference {expected:.4f}: {found / expected - 1:+.3%}")
    # One text measures this with a standard error of 0.14 %: benchmarks/NOTES.md has what each rounding costs.
    assert abs(found / expected - 1) <= 0.005


def test_int8_kv_changes_no_bit_with_chunks_threads_and_blocks(perplexity, build_dir, demo_model):
    request = [{"tokens": perplexity[0], "max_tokens": 4}]
    one, other = (run(build_dir, demo_model, request, "kv=I8", *options)
                  for options in (("threads=2",), ("threads=3", "chunk=61", "block_size=8")))
    assert one == other


def test_portable_kernels_agree_with_the_reference(demo, build_dir, demo_model):
    llama, prompts, _ = demo
    requests = [{"tokens": prompt, "max_tokens": 8} for prompt in prompts[::14]]
    comparison = Comparison(llama)
    for request, answer in zip(requests, run(build_dir, demo_model, requests, "isa=plain", "threads=2")):
        comparison.add(request["tokens"], answer)
    assert comparison.sure > 6 and not comparison.wrong
    assert comparison.mean() <= 0.06


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
SHAPES = {
    "head 64, 8 query heads for a KV head": dict(head_dim=64, heads=8, kv_heads=1),
    "head 128, llama3 rope": dict(head_dim=128, heads=4, kv_heads=2, rope_scaling=LLAMA3),
    "tied, bias, odd sizes": dict(head_dim=40, heads=3, kv_heads=3, tied=True, bias=True, vocabulary=301, hidden=96,
                                  intermediate=160),
}
# Mean |Δ logprob|: only the order of sums differs, with K and V in F32; K and V in F16 and 8-bit activations.
EXACT, QUANTIZED = 2e-4, 6e-2


def check_random_llama(build_dir, path, config, stored, tolerance, isa):
    random = np.random.default_rng(7)
    requests = [{"tokens": random.integers(0, config["vocab_size"], size).tolist(), "max_tokens": 12}
                for size in (1, 17, 70)]
    comparison = Comparison(reference.Llama(config, stored))
    kv = "kv=F32" if tolerance == EXACT else "kv=F16"
    for request, answer in zip(requests, run(build_dir, path, requests, f"isa={isa}", kv, "threads=2", "chunk=24")):
        comparison.add(request["tokens"], answer)
    assert comparison.sure > 5 and not comparison.wrong
    assert comparison.mean() <= tolerance and np.mean(comparison.prompt_deltas) <= tolerance


CODE_PATHS = ["avx512bf16", "avx512", "avx2", "plain"]


@pytest.mark.parametrize("isa", CODE_PATHS)
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_random_safetensors(build_dir, tmp_path, shape, kind, isa):
    config, weights = reference.random_llama(3, **SHAPES[shape])
    stored = reference.write_safetensors(tmp_path / "model", config, weights, kind)
    rounds_input = isa == "avx512bf16" and kind == "BF16"
    check_random_llama(build_dir, tmp_path / "model", config, stored, QUANTIZED if rounds_input else EXACT, isa)


@pytest.mark.parametrize("isa", CODE_PATHS)
@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0"])
@pytest.mark.parametrize("shape", list(SHAPES)[:2])
def test_random_gguf(build_dir, tmp_path, shape, kind, isa):
    config, weights = reference.random_llama(4, **SHAPES[shape])
    stored = reference.write_gguf(tmp_path / "model.gguf", config, weights, kind)
    check_random_llama(build_dir, tmp_path / "model.gguf", config, stored, EXACT if kind == "F16" else QUANTIZED, isa)


if __name__ == "__main__":
    write_answers_for_gpus(load_demo(pathlib.Path(sys.argv[2])), pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))

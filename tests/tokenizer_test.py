"""Baton's tokenizer against Hugging Face's `tokenizers`, token for token, on texts that are hard on tokenizers."""

import json
import pathlib
import random
import subprocess
import sys
import unicodedata

import pytest
from tokenizers import Regex, normalizers, pre_tokenizers

import tokenizer_references
import tokenizer_texts

TEXTS = 10_000


class Oracle:
    def __init__(self, build_dir):
        self.process = subprocess.Popen([build_dir / "tests" / "tokenizer_oracle"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, encoding="utf-8")

    def ask(self, **question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=10) == 0


@pytest.fixture
def oracle(build_dir):
    oracle = Oracle(build_dir)
    yield oracle
    oracle.close()


class Case:
    """A reference tokenizer, the same one loaded into the oracle, and texts for it."""

    def __init__(self, name, oracle, demo_model, directory):
        self.name, self.oracle = name, oracle
        self.reference, self.specials = tokenizer_references.make(name, demo_model, directory)
        self.loaded = oracle.ask(load=str(directory))
        assert "error" not in self.loaded, self.loaded
        self.texts = tokenizer_texts.texts(seed=7, count=TEXTS, specials=self.specials)


@pytest.fixture(scope="module", params=list(tokenizer_references.ALL))
def case(request, build_dir, demo_model, tmp_path_factory):
    oracle = Oracle(build_dir)
    yield Case(request.param, oracle, demo_model, tmp_path_factory.mktemp(request.param))
    oracle.close()


def hexed(texts):
    return [(text if isinstance(text, bytes) else text.encode()).hex() for text in texts]


def differences(ours, theirs, inputs):
    assert len(ours) == len(theirs) == len(inputs)
    return [(i, o, t) for i, o, t in zip(inputs, ours, theirs) if o != t][:3]


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("parse", [True, False])
def test_encodes_as_the_reference(case, add, parse):
    texts = case.texts if parse and add else case.texts[:3000]
    case.reference.encode_special_tokens = not parse
    encodings = case.reference.encode_batch([text.decode(errors="replace") for text in texts], add_special_tokens=add)
    case.reference.encode_special_tokens = False
    answer = case.oracle.ask(encode=hexed(texts), add=add, parse=parse)
    assert differences(answer["tokens"], [encoding.ids for encoding in encodings], texts) == []


@pytest.fixture(scope="module")
def sequences(case):
    """Token sequences: encoded texts, and random ones, which mostly are no UTF-8."""
    texts = [text.decode(errors="replace") for text in case.texts[:3000]]
    encoded = [encoding.ids for encoding in case.reference.encode_batch(texts)]
    rng = random.Random(3)
    # Single bytes are rare among a large vocabulary's tokens, and make the hardest sequences.
    size = case.loaded["vocabulary"]
    single = [i for i in range(size) if len(case.reference.id_to_token(i)) == 1]
    return encoded + [[rng.choice(single) if rng.random() < 0.5 else rng.randrange(size) for _ in range(rng.randint(1, 40))]
                      for _ in range(TEXTS)]


@pytest.mark.parametrize("skip", [False, True])
def test_decodes_as_the_reference_at_once_and_token_by_token(case, sequences, skip):
    expected = case.reference.decode_batch(sequences, skip_special_tokens=skip)
    assert differences(case.oracle.ask(decode=sequences, skip=skip)["texts"], expected, sequences) == []
    parts = case.oracle.ask(stream=sequences, skip=skip)["parts"]
    assert differences(["".join(part) for part in parts], expected, sequences) == []


def test_reads_the_configuration(case):
    expected = {"smollm": (1, False, [2], ""), "llama3": (128000, True, [128009], ""),
                "gpt2": (-1, False, [0], ""), "qwen2": (-1, False, None, "d")}[case.name]
    loaded = case.loaded
    eos = loaded["eos"] if expected[2] is not None else None
    assert (loaded["bos"], loaded["add_bos"], eos, loaded["chat_template"]) == expected
    assert loaded["vocabulary"] == case.reference.get_vocab_size(with_added_tokens=True)


def test_long_texts_take_linear_time(case):
    for text in ["a", " ", "é", "\n", "0", "ab ", "!?", "👍"]:
        long = text * (300_000 // len(text))
        answer = case.oracle.ask(time=long.encode().hex(), repeat=1)
        assert answer["seconds"] < 20, (text, answer)  # mostly 0.03; quadratic work would be minutes


PATTERNS = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    tokenizer_references.QWEN2_PATTERN,
    tokenizer_references.QWEN2_PATTERN.replace(r"\p{N}|", r"\p{N}{1,3}|"),
    # GPT-4o
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    # DeepSeek V3
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
    "[一-龥぀-ゟ゠-ヿ]+", r"\s+$", r"^\s+", r"\w+|\W", r"[\w']+", r"\d{2,}", r"\d{,2}x", r"[^\S\n]+", r"\p{Han}+|\p{Greek}",
    r"a{2}|(b|c)+?d?+", r".+", r"[\s-]+", r"(?<=a)b|(?<!\s)\s(?=[a-z])", r"{|}", r"\t\v\f|\u3000", r"\p{P}|\P{L}{3}", "",
    "[$()*+.?#&~^-]+ ?",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_split_as_in_the_reference(oracle, pattern):
    reference = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    texts = [text.decode(errors="replace") for text in tokenizer_texts.texts(seed=5, count=2000)]
    answer = oracle.ask(split=pattern, texts=hexed(texts))
    expected = [[piece for piece, _ in reference.pre_tokenize_str(text)] for text in texts]
    assert "error" not in answer, answer
    assert differences(answer["pieces"], expected, texts) == []


def test_presets_split_as_in_the_reference(oracle):
    texts = [text.decode(errors="replace") for text in tokenizer_texts.texts(seed=6, count=700)]
    presets = oracle.ask(presets=None)
    assert len(presets) > 10
    for name, patterns in presets.items():
        reference = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), behavior="isolated") for p in patterns])
        answer = oracle.ask(preset=name, texts=hexed(texts))
        expected = [[piece for piece, _ in reference.pre_tokenize_str(text)] for text in texts]
        assert differences(answer["pieces"], expected, texts) == [], name


@pytest.mark.parametrize("pattern", [r"[a[b]]", r"[a-c&&b]", r"[[:alpha:]]", r"\h", r"a{2}+", r"\bx", r"(?<n>a)", r"\p{Foo}",
                                     r"[\W]", r"(", "[a", "\\", r"(?x) a", "[]a]", r"(a)\1"])
def test_refuses_patterns_that_mean_something_else_in_pcre2(oracle, pattern):
    answer = oracle.ask(split=pattern, texts=[])
    assert "regular expression" in answer.get("error", ""), answer


# Every character alone and between others: the properties that hand-written scanners go by are the reference's.
@pytest.mark.parametrize("preset,pattern", [("gpt-2", PATTERNS[0]), ("qwen2", PATTERNS[1]), ("llama-bpe", PATTERNS[2])])
def test_every_character_splits_as_in_the_reference(oracle, preset, pattern):
    reference = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    characters = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")]
    texts = [f"a{c}{c}'{c} {c}1{c}\n{c}" for c in characters[:40_000]] + [f"a{c}1 {c}" for c in characters[40_000::16]]
    answer = oracle.ask(preset=preset, texts=hexed(texts))
    expected = [[piece for piece, _ in reference.pre_tokenize_str(text)] for text in texts]
    assert differences(answer["pieces"], expected, texts) == []


def test_scanners_split_as_pcre2(oracle):
    texts = tokenizer_texts.texts(seed=11, count=TEXTS)
    texts = hexed(text.decode(errors="replace") for text in texts)
    for preset, pattern in [("gpt-2", PATTERNS[0]), ("qwen2", PATTERNS[1]), ("llama-bpe", PATTERNS[2])]:
        scanned = oracle.ask(preset=preset, texts=texts)["pieces"]
        assert differences(scanned, oracle.ask(split=pattern, texts=texts)["pieces"], texts) == []


def test_normalizes_as_the_reference(oracle):
    rng = random.Random(1)
    reference = normalizers.NFC()
    everything = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    changing = [c for c in everything if unicodedata.normalize("NFD", c) != c or unicodedata.combining(c)]
    texts = [f"a{c}\u0301\u0323\u0334" for c in changing] + [unicodedata.normalize("NFD", c) for c in changing]
    texts += ["".join(everything[i:i + 64]) for i in range(0, len(everything), 64)]
    texts += ["".join(rng.choice(changing + ["a", "\u1100", "\u1161", "\u11a8"]) for _ in range(rng.randint(1, 12)))
              for _ in range(8_000)]
    texts += [unicodedata.normalize("NFD", text) for text in texts[-3000:]]
    expected = [reference.normalize_str(text) for text in texts]
    assert differences(oracle.ask(nfc=hexed(texts))["texts"], expected, texts) == []
    # Only marks that Unicode got after 9.0 may make a difference to newer tables.
    newer = sum(unicodedata.normalize("NFC", text) != normalized for text, normalized in zip(texts, expected))
    assert newer < len(texts) / 20


@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="the tables are Unicode 14.0, this Python's are not")
def test_unicode_tables_are_what_the_script_writes():
    root = pathlib.Path(__file__).resolve().parent.parent
    made = subprocess.run([sys.executable, root / "scripts" / "make_unicode_tables.py"], capture_output=True, text=True)
    # All but the lines that name the Python.
    committed = (root / "src" / "text" / "unicode_tables.inc").read_text()
    assert made.stdout.splitlines()[2:] == committed.splitlines()[2:]

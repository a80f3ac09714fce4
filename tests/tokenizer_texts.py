"""Texts that are hard on tokenizers, as bytes (some are no UTF-8). The same seed gives the same texts."""

import random
import unicodedata

# Assigned characters by category; what is unassigned in this Unicode version may be assigned in the reference's.
BY_CATEGORY = {}
for _code in range(0x110000):
    BY_CATEGORY.setdefault(unicodedata.category(chr(_code)), []).append(chr(_code))
for _absent in ("Cn", "Cs"):
    del BY_CATEGORY[_absent]
COMMON_SCRIPTS = [(0x400, 0x45F), (0x3B1, 0x3C9), (0x5D0, 0x5EA), (0x621, 0x64A), (0x905, 0x939), (0xE01, 0xE2E),
                  (0x4E00, 0x9FA5), (0x3041, 0x3096), (0x30A1, 0x30FA), (0xAC00, 0xD7A3), (0x10D0, 0x10F0), (0xC0, 0x24F)]
SPACES = " \t\n\v\f\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2000\u2003\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
EMOJI = ["👩‍👩‍👧‍👦", "👍🏽", "🇺🇦🇯🇵", "🏳️‍🌈", "☺️", "1️⃣", "🧑🏿‍🚀", "😀"]
CONTRACTIONS = ["'s", "'S", "'t", "'T", "'re", "'Re", "'rE", "'RE", "'ve", "'VE", "'m", "'M", "'ll", "'lL", "'LL", "'d",
                "'D", "'\u017f", "'x", "''s", "\u2019s", "'l", "'r", "'v", "'K", "'\u212a"]
DECOMPOSED = ["e\u0301", "A\u030a", "o\u0323\u0302", "\u1112\u1161\u11ab", "\u0958", "\u2126", "\u212b", "q\u0307\u0323",
              "\u0344", "\u0f73", "\U0001d15e", "\uf900", "\u1100\u1161", "\uac00\u11a8", "\u05d0\u05b7\u05bc"]
CODE = ["def f(x):\n    return x[0] + 1  # ok\n", "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}\n", "</div>\n\n  <p>",
        '{"a": [1, 2.5e-3, null], "b": {"c": "\\u00e9\\n"}}', "SELECT * FROM t WHERE x != 'y';", "x=$(ls -l | grep '^d')",
        "https://example.com/a?b=c&d=%20", "0xDEADBEEF", "-> => != === ... --- ///"]
INVALID = [b"\xff", b"\xc0\x80", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80\x80", b"\xc3",
           b"\xf8\x88\x80\x80\x80", b"\xe0\x80\x80"]
WORDS = ("the quick brown fox jumps over lazy dog Once upon a time there was internationalization don't CamelCase "
         "snake_case HTTP2 it's I'll we've you're they'd token tokenizer hello world").split()


def _part(rng, specials):
    kind = rng.randrange(16)
    if kind <= 2:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 6)))
    if kind == 3:
        return rng.choice(WORDS) + rng.choice(CONTRACTIONS) + rng.choice(["", " ", "a", "."])
    if kind == 4:
        numbers = rng.choice(["0123456789", "0123456789,.", "٠١٢٣٤٥٦٧٨٩", "²³¼½Ⅷ①", "".join(BY_CATEGORY["Nd"][:600])])
        return "".join(rng.choice(numbers) for _ in range(rng.randint(1, 9)))
    if kind == 5:
        category = rng.choice(sorted(BY_CATEGORY))
        return "".join(rng.choice(BY_CATEGORY[category]) for _ in range(rng.randint(1, 5)))
    if kind <= 7:
        first, last = rng.choice(COMMON_SCRIPTS)
        return "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 8)))
    if kind == 8:
        return rng.choice(EMOJI)
    if kind == 9:
        return "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 5)))
    if kind == 10:
        return rng.choice([" ", "\n", "\r\n", "\t"]) * rng.randint(1, 4)
    if kind == 11:
        return chr(rng.choice([*range(32), 127, *range(128, 160)]))
    if kind == 12:
        return rng.choice(" a.é中=-\n0'ſ") * rng.choice([1, 3, 20, 150])
    if kind == 13 and specials:
        special = rng.choice(specials)
        return rng.choice([special, special, " " + special + " ", special[:-1], special[1:], special + "s", special.upper()])
    if kind == 14:
        return rng.choice(CODE)
    return rng.choice(DECOMPOSED) + rng.choice(["", "\u0301", "\u0316\u0301", "x"])


def texts(seed, count, specials=()):
    rng = random.Random(seed)
    out = [b"", b" ", b"\n", b"a"]
    for special in specials:
        out += [special.encode(), f" {special}  ".encode(), f"a{special}b".encode()]
    while len(out) < count:
        parts = []
        for _ in range(rng.randint(1, 8)):
            part = _part(rng, specials).encode("utf-8", errors="ignore")
            if rng.random() < 0.03:
                part += rng.choice(INVALID)
            if rng.random() < 0.02:
                part = part[:rng.randrange(len(part) + 1)]
            parts.append(part)
        out.append(rng.choice([b"", b" "]).join(parts))
    return out

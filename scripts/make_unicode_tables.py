#!/usr/bin/env python3
"""Writes src/text/unicode_tables.inc from Python's unicodedata.

    python3 scripts/make_unicode_tables.py > src/text/unicode_tables.inc

Python's Unicode version should be the one that the reference implementations use (14.0: Python 3.11, PCRE2 10.42).
"""

import sys
import unicodedata

COLUMNS = 118
LETTER, NUMBER, WHITE_SPACE, WORD = 1, 2, 4, 8
# Word characters that are not of category L, M, Nl, Nd or Pc: join controls, and symbols with the property Alphabetic.
OTHER_WORD = [(0x200C, 0x200D), (0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189)]

# Hugging Face normalizes by Unicode 9.0: it does not move these marks of later versions, nor compose U+11938 (13.0).
# The models were trained with that, so these tables leave them out too; tests/tokenizer_test.py compares everything.
MARKS_SINCE_10 = [
    (0x7FD, 0x7FD), (0x898, 0x89F), (0x8CA, 0x8D3), (0x9FE, 0x9FE), (0xC3C, 0xC3C), (0xD3B, 0xD3C), (0xEBA, 0xEBA),
    (0x1715, 0x1715), (0x1ABF, 0x1ACE), (0x1DF6, 0x1DFA), (0xA82C, 0xA82C), (0x10D24, 0x10D27), (0x10EAB, 0x10EAC),
    (0x10F46, 0x10F50), (0x10F82, 0x10F85), (0x11070, 0x11070), (0x1133B, 0x1133B), (0x1145E, 0x1145E),
    (0x11839, 0x1183A), (0x1193D, 0x1193E), (0x11943, 0x11943), (0x119E0, 0x119E0), (0x11A34, 0x11A34),
    (0x11A47, 0x11A47), (0x11A99, 0x11A99), (0x11D42, 0x11D42), (0x11D44, 0x11D45), (0x11D97, 0x11D97),
    (0x16FF0, 0x16FF1), (0x1E130, 0x1E136), (0x1E2AE, 0x1E2AE), (0x1E2EC, 0x1E2EF)]
COMPOSED_SINCE_10 = {0x11938}


def combining(code):
    return 0 if any(a <= code <= b for a, b in MARKS_SINCE_10) else unicodedata.combining(chr(code))


def properties(code):
    char = chr(code)
    category = unicodedata.category(char)
    bits = 0
    if category[0] == "L":
        bits |= LETTER
    if category[0] == "N":
        bits |= NUMBER
    if category[0] == "Z" or char in "\t\n\v\f\r\x85":
        bits |= WHITE_SPACE
    if category[0] in "LM" or category in ("Nl", "Nd", "Pc") or any(a <= code <= b for a, b in OTHER_WORD):
        bits |= WORD
    return bits


def ranges(function):
    """(first, last, value) of every maximal run of equal non-zero values."""
    out = []
    for code in range(0x110000):
        value = function(code)
        if out and out[-1][1] == code - 1 and out[-1][2] == value:
            out[-1][1] = code
        elif value:
            out.append([code, code, value])
    return out


def decompositions():
    """(code, first, second, composes) of every one-step canonical decomposition but Hangul; second 0: a singleton."""
    for code in range(0x110000):
        mapping = unicodedata.decomposition(chr(code))
        if not mapping or mapping.startswith("<") or code in COMPOSED_SINCE_10:
            continue
        parts = [int(part, 16) for part in mapping.split()] + [0]
        composes = parts[1] != 0 and unicodedata.normalize("NFC", chr(parts[0]) + chr(parts[1])) == chr(code)
        yield code, parts[0], parts[1], int(composes)


def write(kind, name, rows):
    print(f"constexpr {kind} {name}[] = {{")
    line = "   "
    for row in rows:
        item = " {" + ",".join(f"{value:#x}" if value > 9 else str(value) for value in row) + "},"
        if len(line) + len(item) > COLUMNS:
            print(line)
            line = "   "
        line += item
    print(line + "\n};")


def main():
    print("// Made by scripts/make_unicode_tables.py, do not edit. clang-format off")
    print(f"// Unicode {unicodedata.unidata_version} of Python {sys.version_info[0]}.{sys.version_info[1]}.")
    write("PropertyRange", "kPropertyRanges", ranges(properties))
    write("CombiningRange", "kCombiningRanges", ranges(combining))
    write("Decomposition", "kDecompositions", decompositions())


main()

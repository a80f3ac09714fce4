"""Reads the key-value section of a GGUF file: enough for the tests to rebuild a reference tokenizer from it.

The `gguf` package would do, but its 0.10 reader needs NumPy 1 and its __init__ needs sentencepiece.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def read_metadata(path):
    """Returns {key: value}; arrays become lists, strings stay bytes-decoded UTF-8."""
    with open(path, "rb") as file:
        def scalar(code):
            return struct.unpack("<" + code, file.read(struct.calcsize(code)))[0]

        def value(kind):
            if kind == _STRING:
                return file.read(scalar("Q")).decode("utf-8")
            if kind == _ARRAY:
                element = scalar("I")
                return [value(element) for _ in range(scalar("Q"))]
            return scalar(_SCALARS[kind])

        assert file.read(4) == b"GGUF", path
        assert scalar("I") in (2, 3)
        scalar("Q")  # tensors
        return {value(_STRING): value(scalar("I")) for _ in range(scalar("Q"))}

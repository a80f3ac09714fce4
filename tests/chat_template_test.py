"""Chat templates: the same text, or an error in both, as jinja2 in Hugging Face's configuration."""

import random

import pytest

from chat_template_reference import Case, Oracle, differences
from chat_template_families import CONVERSATIONS, DOCUMENTS, TEMPLATES as FAMILIES, TOOLS
from chat_template_snippets import EXPRESSIONS, TEMPLATES, VALUES
from gguf_metadata import read_metadata


@pytest.fixture(scope="module")
def oracle(build_dir):
    process = Oracle(build_dir)
    yield process
    process.close()


def snippet(template):
    return Case(template, messages=[{"role": "user", "content": "hi"}], arguments=VALUES)


def check(oracle, cases):
    found = differences(oracle, cases)
    assert not found, f"{len(found)} of {len(cases)} differ:\n" + "\n".join(found[:40])


def split_expressions(line):
    """The parts of a line between its outermost commas."""
    parts, depth, quote, part = [], 0, "", ""
    for i, c in enumerate(line):
        if quote:
            quote = "" if c == quote and line[i - 1] != "\\" else quote
        elif c in "'\"":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        if c == "," and depth == 0 and not quote:
            parts.append(part.strip())
            part = ""
        else:
            part += c
    return [p for p in parts + [part.strip()] if p]


def expression_cases():
    lines = EXPRESSIONS.strip().split("\n")
    return lines, [part for line in lines for part in split_expressions(line)]


def test_expressions(oracle):
    lines, parts = expression_cases()
    assert len(parts) > 600
    check(oracle, [snippet("{{ " + part + " }}") for part in parts])
    # A whole line is a tuple, printed by repr(). Baton has no Markup type, so what escapes prints as a plain str there.
    check(oracle, [snippet("{{ " + line + " }}") for line in lines if "| e," not in line])


def test_templates(oracle):
    check(oracle, [snippet(template) for template in TEMPLATES])


def conversation_cases(template):
    for messages in CONVERSATIONS.values():
        yield Case(template, messages)
        yield Case(template, messages, tools=TOOLS, prompt=False)
        yield Case(template, messages, tools=TOOLS[:1], documents=DOCUMENTS, arguments={"enable_thinking": False})


@pytest.mark.parametrize("name", FAMILIES)
def test_families(oracle, name):
    cases = list(conversation_cases(FAMILIES[name]))
    check(oracle, cases)
    assert sum(case.expected[1] is None for case in cases) >= 8  # enough of them are texts, not errors


def test_demo_model(oracle, demo_model):
    cases = list(conversation_cases(read_metadata(demo_model)["tokenizer.chat_template"]))
    check(oracle, cases)
    assert "<|im_start|>assistant" in cases[3].expected[0]


def test_raised_message_is_passed_on(oracle):
    answer = oracle.render(Case("{% if 1 %}\n{{ raise_exception('Roles must alternate: ' ~ 1) }}{% endif %}"))
    assert answer == {"error": "Roles must alternate: 1", "compile": False}


def test_errors_name_the_line(oracle):
    assert oracle.render(Case("a\n\n{{ 1 + }}"))["error"].startswith("chat template line 3: expected an expression")
    assert oracle.render(Case("a\nb{{ 1 }}\n{{ x.y }}"))["error"] == "chat template line 3: 'x' is undefined"


def random_whitespace_template(rng):
    """Tags with random signs, among random white space."""
    spaces = ["", " ", "\n", "\n\n", "  \n", "\n  ", "\t", " x ", "\r\n", "y\n", "\u00a0", "\u2028"]

    def tag(opening, body, closing, signs="-+"):
        left = rng.choice(["", "", "-", "+" if "+" in signs else ""])
        right = rng.choice(["", "", "-", "+" if "+" in signs and closing != "}}" else ""])
        pad = rng.choice(["", " ", "\n"])
        return opening + left + " " + pad + body + pad + " " + right + closing

    def text():
        return "".join(rng.choice(spaces) for _ in range(rng.randrange(4)))

    def piece(depth):
        kind = rng.randrange(8 if depth < 3 else 4)
        if kind == 0:
            return tag("{{", rng.choice(["n", "'v'", "' s '"]), "}}", "-")
        if kind == 1:
            return tag("{#", "note", "#}")
        if kind == 2:
            return tag("{%", "set v = 1", "%}")
        if kind == 3:
            return tag("{%", "raw", "%}", "-").replace("+%}", "%}") + text() + "{{ r }}" + tag("{%", "endraw", "%}")
        if kind == 4:
            return tag("{%", "if t", "%}") + body(depth + 1) + tag("{%", "else", "%}") + "no" + tag("{%", "endif", "%}")
        if kind == 5:
            return tag("{%", "for i in [1, 2]", "%}") + body(depth + 1) + tag("{%", "endfor", "%}")
        if kind == 6:
            return tag("{%", "filter upper", "%}") + body(depth + 1) + tag("{%", "endfilter", "%}")
        return tag("{%", "set w", "%}") + body(depth + 1) + tag("{%", "endset", "%}") + "{{ w }}"

    def body(depth):
        return text() + "".join(piece(depth) + text() for _ in range(rng.randrange(1, 4)))

    return body(0)


def test_random_whitespace(oracle):
    rng = random.Random(20241124)
    cases = [snippet(random_whitespace_template(rng)) for _ in range(600)]
    check(oracle, cases)
    assert sum(case.expected[1] is None for case in cases) > 400


def random_expression(rng, depth=0):
    """A well-formed expression; whether its operands fit is left to chance. No constants: Jinja folds them, and takes
    the slice of a folded number for undefined instead of an error."""
    leaves = ["n", "neg", "f", "s", "xs", "d", "t", "no", "nothing", "missing", "zero", "words", "empty", "[n, s]", "uni"]
    if depth > 2 or rng.random() < 0.25:
        return rng.choice(leaves)
    sub = lambda: random_expression(rng, depth + 1)  # noqa: E731
    kind = rng.randrange(9)
    if kind == 0:
        return f"({sub()} {rng.choice(['+', '-', '*', '/', '//', '%', '~'])} {sub()})"
    if kind == 1:
        return f"({sub()} {rng.choice(['==', '!=', '<', '<=', '>', '>=', 'in', 'not in'])} {sub()})"
    if kind == 2:
        return f"({sub()} {rng.choice(['and', 'or'])} {sub()})"
    if kind == 3:
        filters = ["upper", "length", "list", "string", "first", "last", "int", "float", "trim", "tojson", "sort", "join('-')",
                   "default('z')", "default('z', true)", "map('string') | list", "select | list", "unique | list", "min", "sum",
                   "replace('a', 'b')", "reverse | list", "round", "abs", "title", "batch(2) | list", "indent", "items | list"]
        return f"({sub()} | {rng.choice(filters)})"
    if kind == 4:
        tests = ["defined", "none", "string", "mapping", "iterable", "sequence", "number", "integer", "float", "boolean", "odd",
                 "even", "lower", "true", "divisibleby(2)", "in('abc')", "eq(1)", "gt(1)", "callable", "sameas(none)"]
        return f"({sub()} is {rng.choice(['', 'not '])}{rng.choice(tests)})"
    if kind == 5:
        return f"({sub()} if {sub()} else {sub()})"
    if kind == 6:
        index = rng.choice(["0", "-1", "'a'", "5", "1:", ":-1", "::-1", "::2", "-2:", "1:2"])
        return f"{sub()}[{index}]"
    if kind == 7:
        calls = ["upper()", "split()", "strip()", "get('a')", "keys() | list", "items() | list", "startswith('a')", "count('a')",
                 "replace('a', 'X')", "index(1)", "a", "zz", "join(['x', 'y'])", "find('b')", "title()", "splitlines()"]
        return f"{sub()}.{rng.choice(calls)}"
    return rng.choice([f"(not {sub()})", f"[{sub()}, {sub()}]", f"{{'k': {sub()}}}", f"({sub()},)", f"-{sub()}"])


def test_random_expressions(oracle):
    rng = random.Random(7)
    cases = [snippet("{{ " + random_expression(rng) + " }}") for _ in range(1500)]
    # Printed addresses of methods, generators and so on differ from run to run.
    cases = [case for case in cases if " at 0x" not in (case.expected[0] or "")]
    check(oracle, cases)
    assert sum(case.expected[1] is None for case in cases) > 500

"""The reference of the chat template tests: jinja2, set up as Hugging Face's apply_chat_template sets it up."""

import copy
import datetime
import functools
import json
import os
import subprocess

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

NOW = 1732406400 + 12345  # 2024-11-24, in the small hours of UTC
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}  # no pad_token: it stays undefined


class Generation(jinja2.ext.Extension):
    """{% generation %} … {% endgeneration %}: the body, as a call block like Hugging Face's."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(format):
    return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None).strftime(format)


def make_environment():
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


ENVIRONMENT = make_environment()


class Case:
    """A template and what it is rendered with."""

    def __init__(self, template, messages=(), tools=None, documents=None, arguments=None, prompt=True):
        self.template = template
        self.messages = list(messages)
        self.tools = tools
        self.documents = documents
        self.arguments = copy.deepcopy(arguments or {})  # Jinja's indent changes a list that it is given
        self.prompt = prompt

    @functools.cached_property
    def expected(self):
        """(text, None), or (None, the error)."""
        try:
            template = ENVIRONMENT.from_string(self.template)
            return template.render(
                messages=self.messages,
                tools=self.tools,
                documents=self.documents,
                add_generation_prompt=self.prompt,
                **{**TOKENS, **self.arguments},
            ), None
        except Exception as error:  # noqa: BLE001: whatever Jinja or Python raises is the expectation
            return None, error

    def request(self):
        return {
            "template": self.template,
            "messages": json.dumps(self.messages),
            "tools": json.dumps(self.tools),
            "documents": json.dumps(self.documents),
            "arguments": json.dumps(self.arguments),
            "add_generation_prompt": self.prompt,
            "now": NOW,
            **TOKENS,
        }


class Oracle:
    """Baton's renderer as a child process."""

    def __init__(self, build_dir):
        self.process = subprocess.Popen(
            [build_dir / "tests" / "chat_template_oracle"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "TZ": "UTC"},
        )

    def render(self, case):
        self.process.stdin.write(json.dumps(case.request()) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the oracle died on {case.template!r}"
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(timeout=10) == 0


def difference(oracle, case):
    """None, or what differs."""
    text, error = case.expected
    answer = oracle.render(case)
    if error is not None:
        if "error" in answer:
            return None
        return f"{case.template!r}: expected {type(error).__name__} {error}, found {answer['text']!r}"
    if "error" in answer:
        return f"{case.template!r}: expected {text!r}, found the error {answer['error']!r}"
    if answer["text"] != text:
        return f"{case.template!r}:\n  expected {text!r}\n  found    {answer['text']!r}"
    return None


def differences(oracle, cases):
    return [found for found in (difference(oracle, case) for case in cases) if found]

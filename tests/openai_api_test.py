"""The HTTP interface as clients see it: the official OpenAI client, Prometheus' parser, and bare sockets."""

import json
import threading
import time

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

import frontend_server
from frontend_server import events, post

TEXT = "Once upon a time, in a café by the sea 🌊, somebody wrote naïve tests – and they all passed! 日本語"


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tokenizer")


@pytest.fixture(scope="module")
def reference(demo_model, tokenizer_dir):
    if not demo_model.exists():
        pytest.skip(f"no demo model at {demo_model}")
    return frontend_server.make_tokenizer(demo_model, tokenizer_dir)


@pytest.fixture(scope="module")
def start(build_dir, tokenizer_dir, reference):
    """start(setting=value…) starts a server of its own."""
    servers = []

    def make(**settings):
        servers.append(frontend_server.Server(build_dir, tokenizer_dir, **settings))
        return servers[-1]

    yield make
    assert [server.stop() for server in servers] == [0] * len(servers)


@pytest.fixture(scope="module")
def server(start):
    return start(body_bytes_max=200_000, header_timeout_ms=500, reasoning="")


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="NOT USED", max_retries=0, timeout=10)


def ask(server, path, body, headers=""):
    """One request on a connection of its own: (status, headers, parsed body)."""
    connection = server.connect()
    connection.send(post(path, body, headers))
    status, head, data = connection.response()
    connection.close()
    if head.get("content-type", "").startswith("text/event-stream"):
        return status, head, events(data)
    return status, head, json.loads(data) if data else None


def echo_tokens(reference, text, count):
    """What the fake generator says to a prompt."""
    ids = reference.encode(text).ids
    return [ids[i % len(ids)] for i in range(count)]


def chat_text(*messages):
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in messages) + "<|im_start|>assistant\n"


# Answers

def test_completion(client, reference):
    answer = client.completions.create(model="demo", prompt=TEXT, max_tokens=40)
    expected = echo_tokens(reference, TEXT, 40)
    assert answer.choices[0].text == reference.decode(expected)
    assert answer.choices[0].finish_reason == "length"
    assert answer.id.startswith("cmpl-") and answer.object == "text_completion" and answer.model == "demo"
    count = len(reference.encode(TEXT).ids)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (count, 40, count + 40)
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


def test_completion_defaults_to_16_tokens(client):
    assert client.completions.create(model="demo", prompt="hello").usage.completion_tokens == 16


def test_chat(client, reference):
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": TEXT}]
    answer = client.chat.completions.create(model="alias", messages=messages, max_completion_tokens=60, user="fake:cached=5")
    prompt = chat_text(("system", "Be kind."), ("user", TEXT))
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == reference.decode(echo_tokens(reference, prompt, 60))
    assert answer.id.startswith("chatcmpl-") and answer.model == "alias"
    assert answer.usage.prompt_tokens == len(reference.encode(prompt).ids)
    assert answer.usage.prompt_tokens_details.cached_tokens == 5


def test_chat_fills_the_context(start, reference):
    server = start(max_model_len=100)
    _, _, answer = ask(server, "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]})
    assert answer["usage"]["total_tokens"] == 100 and answer["choices"][0]["finish_reason"] == "length"


def test_content_parts(server, client):
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    a = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": parts}], max_tokens=9)
    b = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "one\ntwo"}], max_tokens=9)
    assert a.choices[0].message.content == b.choices[0].message.content


@pytest.mark.parametrize("settings", ["", ",burst=3", ",burst=7,resend=5", ",resend=1,delay_ms=1"])
def test_stream_equals_whole(client, reference, settings):
    whole = client.completions.create(model="demo", prompt=TEXT, max_tokens=50)
    chunks = list(client.completions.create(model="demo", prompt=TEXT, max_tokens=50, stream=True,
                                            stream_options={"include_usage": True}, user="fake:x=1" + settings))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == whole.choices[0].text
    assert all("\ufffd" not in chunk.choices[0].text for chunk in chunks[:-1])
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    # One event for each token that completes a character, however they come together.
    text, expected = "", 0
    for i in range(1, 51):
        now = reference.decode(echo_tokens(reference, TEXT, i)).rstrip("\ufffd")
        if now != text:
            text, expected = now, expected + 1
    assert len(chunks) - 1 == expected


def test_chat_stream(server):
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "stream": True, "n": 2}
    status, headers, data = ask(server, "/v1/chat/completions", body)
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    assert data[-1] == "[DONE]"
    chunks = [json.loads(item) for item in data[:-1]]
    assert [chunk["choices"][0]["index"] for chunk in chunks[:2]] == [0, 1]
    assert all(chunk["choices"][0]["delta"] == {"role": "assistant", "content": ""} for chunk in chunks[:2])
    assert all("role" not in chunk["choices"][0]["delta"] for chunk in chunks[2:])
    assert len({chunk["id"] for chunk in chunks}) == 1 and "usage" not in chunks[-1]
    for index in (0, 1):
        reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert reasons[-1] == "length" and set(reasons[:-1]) == {None}


def test_choices_and_seeds(client):
    def texts(**more):
        return [choice.text for choice in client.completions.create(model="demo", prompt="hi", max_tokens=8, temperature=1,
                                                                    **more).choices]
    first = texts(n=3, seed=7)
    assert len(set(first)) == 3 and texts(n=3, seed=7) == first
    assert texts(n=1, seed=7) == first[:1]
    assert texts() != texts()  # a seed is drawn


@pytest.mark.parametrize("prompt,count", [
    ("abc", 1), (["abc", "def ghi"], 2), ([1000, 1001, 1002], 1), ([[1000, 1001], [2000]], 2)])
def test_prompt_forms(client, reference, prompt, count):
    answer = client.completions.create(model="demo", prompt=prompt, max_tokens=4, n=2, temperature=0)
    assert [choice.index for choice in answer.choices] == list(range(2 * count))
    prompts = [prompt] if count == 1 else prompt
    ids = [reference.encode(item).ids if isinstance(item, str) else item for item in prompts]
    for choice in answer.choices:
        own = ids[choice.index // 2]
        assert choice.text == reference.decode([own[i % len(own)] for i in range(4)])
    assert answer.usage.prompt_tokens == sum(map(len, ids)) and answer.usage.completion_tokens == 8 * count


def test_echo_and_logprobs(client, reference):
    ids = reference.encode(TEXT).ids
    answer = client.completions.create(model="demo", prompt=TEXT, max_tokens=3, echo=True, logprobs=2).choices[0]
    assert answer.text == TEXT + reference.decode(ids[:3])
    logprobs = answer.logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == len(ids) + 3
    assert logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
    assert logprobs.token_logprobs[1:] == [-0.5] * (len(ids) + 2)
    assert all(len(top) == 2 for top in logprobs.top_logprobs[1:])
    assert logprobs.text_offset[:2] == [0, len(logprobs.tokens[0])]
    chunks = list(client.completions.create(model="demo", prompt=TEXT, max_tokens=3, echo=True, logprobs=2, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer.text
    assert [x for chunk in chunks for x in chunk.choices[0].logprobs.text_offset] == logprobs.text_offset
    assert [x for chunk in chunks for x in chunk.choices[0].logprobs.token_logprobs] == logprobs.token_logprobs


def test_chat_logprobs(client, reference):
    def create(**more):
        return client.chat.completions.create(model="demo", messages=[{"role": "user", "content": TEXT}], max_tokens=60,
                                              logprobs=True, top_logprobs=3, **more)
    content = create().choices[0].logprobs.content
    assert len(content) == 60
    assert all(item.logprob == -0.5 and len(item.top_logprobs) == 3 for item in content)
    assert [item.top_logprobs[1].logprob for item in content] == [-0.75] * 60
    expected = reference.decode(echo_tokens(reference, chat_text(("user", TEXT)), 60), skip_special_tokens=False)
    assert bytes(b for item in content for b in item.bytes).decode(errors="replace") == expected
    streamed = [item for chunk in create(stream=True) if chunk.choices[0].logprobs
                for item in chunk.choices[0].logprobs.content]
    assert [item.bytes for item in streamed] == [item.bytes for item in content]


def test_token_ids(server, reference):
    body = {"prompt": "one two three", "max_tokens": 5, "return_token_ids": True}
    ids = reference.encode("one two three").ids
    _, _, whole = ask(server, "/v1/completions", body)
    assert whole["prompt_token_ids"] == ids
    assert whole["choices"][0]["token_ids"] == echo_tokens(reference, "one two three", 5)
    _, _, data = ask(server, "/v1/completions", {**body, "stream": True, "n": 2})
    chunks = [json.loads(item) for item in data[:-1]]
    assert [chunk["prompt_token_ids"] for chunk in chunks if "prompt_token_ids" in chunk] == [ids]
    _, _, data = ask(server, "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5,
                                                      "return_token_ids": True, "stream": True})
    chunks = [json.loads(item) for item in data[:-1]]
    prompt = reference.encode(chat_text(("user", "x"))).ids
    assert chunks[0]["prompt_token_ids"] == prompt
    assert [t for chunk in chunks[1:] for t in chunk["choices"][0]["token_ids"]] == (prompt * 5)[:5]


@pytest.mark.parametrize("stop", [" upon a", "time,", "é", "🌊", [" zzz", "sea 🌊"], "O", "never to come"])
@pytest.mark.parametrize("include", [False, True])
def test_stop_strings(client, reference, stop, include):
    full = reference.decode(echo_tokens(reference, TEXT, 40))
    stops = [stop] if isinstance(stop, str) else stop
    ends = [full.index(s) + (len(s) if include else 0) for s in stops if s in full]
    expected = full[:min(ends)] if ends else full
    arguments = dict(model="demo", prompt=TEXT, max_tokens=40, stop=stop, extra_body={"include_stop_str_in_output": include})
    answer = client.completions.create(**arguments).choices[0]
    assert answer.text == expected
    assert answer.finish_reason == ("stop" if ends else "length")
    shown = ""
    for chunk in client.completions.create(stream=True, **arguments):
        shown += chunk.choices[0].text
        assert expected.startswith(shown)  # never more than may be shown
    assert shown == expected


def test_stop_strings_wait_for_min_tokens(client, reference):
    full = reference.decode(echo_tokens(reference, "a b a b a b", 30))
    answer = client.completions.create(model="demo", prompt="a b a b a b", max_tokens=30, stop=" b",
                                       extra_body={"min_tokens": 10}).choices[0]
    assert answer.finish_reason == "stop" and len(answer.text) > 10 and full.startswith(answer.text)


def test_end_tokens(client, reference):
    def create(**extra):
        user = "fake:eos_at=3"
        return client.completions.create(model="demo", prompt=TEXT, max_tokens=6, user=user, extra_body=extra)
    answer = create()
    assert answer.choices[0].finish_reason == "stop" and answer.usage.completion_tokens == 4
    assert answer.choices[0].text == reference.decode(echo_tokens(reference, TEXT, 3))
    for extra in ({"ignore_eos": True}, {"nvext": {"ignore_eos": True}}):
        assert create(**extra).usage.completion_tokens == 6
    shown = create(ignore_eos=True, skip_special_tokens=False).choices[0].text
    assert "<|im_end|>" in shown
    ids = echo_tokens(reference, TEXT, 6)
    answer = client.completions.create(model="demo", prompt=TEXT, max_tokens=6, extra_body={"stop_token_ids": [ids[2]]})
    assert answer.choices[0].finish_reason == "stop" and answer.choices[0].text == reference.decode(ids[:2])


def test_a_stop_string_cancels_the_generator(server, client):
    before = server.fake()["cancelled"]
    client.completions.create(model="demo", prompt=TEXT, max_tokens=1000, stop=" upon", user="fake:delay_ms=5")
    server.wait_for(lambda fake: fake["cancelled"] == before + 1 and fake["active"] == 0)


def test_echo_of_the_assistants_beginning(server):
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "I think"}]
    body = {"messages": messages, "max_tokens": 3, "echo": True, "add_generation_prompt": False}
    _, _, answer = ask(server, "/v1/chat/completions", body)
    assert answer["choices"][0]["message"]["content"].startswith("I think")


def test_reasoning(start, reference):
    content = "<think>\nhm, café</think>\n\nThe answer"
    server = start(reasoning="tagged", template="content only")
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": len(reference.encode(content).ids)}
    message = ask(server, "/v1/chat/completions", body)[2]["choices"][0]["message"]
    assert message["reasoning_content"] == "\nhm, café" and message["content"] == "\n\nThe answer"
    deltas = [json.loads(item)["choices"][0]["delta"] for item in ask(server, "/v1/chat/completions", {**body, "stream": True})[2][:-1]]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "\nhm, café"
    assert "".join(delta.get("content", "") for delta in deltas) == "\n\nThe answer"
    plain = start(template="content only")
    assert ask(plain, "/v1/chat/completions", body)[2]["choices"][0]["message"]["content"] == content


def test_explanation(server):
    body = {"prompt": "hello", "max_tokens": 3}
    _, _, plain = ask(server, "/v1/completions", body)
    assert "baton" not in plain
    _, headers, answer = ask(server, "/v1/completions", body, "x-baton-explain: 1\r\nx-request-id: my-id\r\n")
    assert headers["x-request-id"] == "my-id" and answer["baton"]["request_id"] == "my-id"
    choice = answer["baton"]["choices"][0]
    assert choice["handoff"] == {"bytes": 4096, "after_prefill_ms": 0.3, "path": "fake 1.0 GB/s"}
    assert choice["queue_ms"] == 1 and answer["baton"]["route"] == {"chosen": "decode-1"}
    _, _, data = ask(server, "/v1/completions", {**body, "stream": True}, "x-baton-explain: 1\r\n")
    assert "baton" in json.loads(data[-2]) and all("baton" not in json.loads(item) for item in data[:-2])


def test_continuous_usage(server):
    options = {"include_usage": True, "continuous_usage_stats": True}
    _, _, data = ask(server, "/v1/completions", {"prompt": "a b c d", "max_tokens": 3, "stream": True, "stream_options": options})
    assert [json.loads(item)["usage"]["completion_tokens"] for item in data[:-1]] == [1, 2, 3, 3]


# Refusals

REFUSALS = [
    ("temperature", 2.5, "2"), ("temperature", -0.1, "0"), ("temperature", "hot", "number"), ("top_p", 0, "above 0"),
    ("top_p", 1.01, "1"), ("n", 0, "1"), ("n", 129, "128"), ("n", 1.5, "integer"), ("max_tokens", 0, "1"),
    ("max_tokens", -1, "1"), ("max_completion_tokens", 0, "1"), ("stop", ["x"] * 17, "16"), ("stop", "", "1"),
    ("stop", 3, "string"), ("frequency_penalty", 2.1, "2"), ("presence_penalty", -2.1, "-2"), ("min_p", 1.5, "1"),
    ("top_k", -2, "-1"), ("repetition_penalty", 0, "above 0"), ("logit_bias", {"49152": 1}, "49151"),
    ("logit_bias", {"x": 1}, "49151"), ("logit_bias", {"5": 101}, "100"), ("logit_bias", [1], "object"),
    ("stop_token_ids", [49152], "49151"), ("stop_token_ids", [-1], "0"), ("stop_token_ids", 7, "list"),
    ("min_tokens", -1, "0"), ("min_tokens", 100, "max_tokens"), ("seed", "x", "integer"), ("stream", "yes", "true"),
    ("stream_options", {"include_usage": True}, "stream"), ("ignore_eos", 1, "true"), ("user", 7, "string"),
    ("priority", "high", "integer"), ("cache_salt", 5, "string"), ("timeout", 0, "above 0"), ("best_of", 5, "best_of"),
    ("tools", [{"type": "function", "function": {"name": "f"}}], "not supported"), ("tool_choice", "auto", "not supported"),
    ("functions", [{"name": "f"}], "not supported"), ("response_format", {"type": "json_object"}, "text"),
    ("response_format", {"type": "json_schema", "json_schema": {}}, "text"), ("response_format", "text", "text"),
    ("model", 5, "string"), ("echo", "no", "true"), ("logprobs", "x", ""),
]


@pytest.mark.parametrize("field,value,says", REFUSALS)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_refused_fields(server, path, field, value, says):
    body = {"max_tokens": 8, field: value}
    body.update({"prompt": "x"} if path == "/v1/completions" else {"messages": [{"role": "user", "content": "x"}]})
    before = server.fake()["started"]
    status, _, answer = ask(server, path, body)
    error = answer["error"]
    assert status == 400 and error["param"] == field, error
    assert field in error["message"] and says in error["message"] and error["type"] == "invalid_request_error"
    assert server.fake()["started"] == before


@pytest.mark.parametrize("body,param", [
    ({"prompt": 5}, "prompt"), ({"prompt": []}, "prompt"), ({"prompt": ["a", 1]}, "prompt"), ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": [[1], "a"]}, "prompt"), ({"prompt": [49152]}, "prompt"), ({"prompt": [-1]}, "prompt"), ({}, "prompt"),
    ({"prompt": ""}, "prompt"), ({"prompt": [[]]}, "prompt"), ({"prompt": ["x"] * 1025}, "prompt"),
    ({"prompt": ["x"] * 100, "n": 11}, "n"), ({"prompt": "x", "logprobs": 21}, "logprobs"),
    ({"prompt": "x", "suffix": "y"}, "suffix")])
def test_refused_prompts(server, body, param):
    status, _, answer = ask(server, "/v1/completions", body)
    assert (status, answer["error"]["param"]) == (400, param), answer


@pytest.mark.parametrize("messages,param", [
    (None, "messages"), ([], "messages"), ("x", "messages"), (["x"], "messages[0]"), ([{"content": "x"}], "messages[0].role"),
    ([{"role": "user", "content": "x"}, {"role": "wizard", "content": "x"}], "messages[1].role"),
    ([{"role": "user", "content": 5}], "messages[0].content"),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "messages[0].content")])
def test_refused_messages(server, messages, param):
    status, _, answer = ask(server, "/v1/chat/completions", {"messages": messages})
    assert (status, answer["error"]["param"]) == (400, param), answer


@pytest.mark.parametrize("more,param", [({"top_logprobs": 3}, "top_logprobs"), ({"logprobs": True, "top_logprobs": 21},
                                                                              "top_logprobs")])
def test_refused_chat_logprobs(server, more, param):
    status, _, answer = ask(server, "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], **more})
    assert (status, answer["error"]["param"]) == (400, param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"nonsense", b'{"prompt": "\xff"}', b'{"prompt":' + b"[" * 100_000,
                                  b'{"prompt": "x", "temperature": NaN}', b'{"prompt": "x"} trailing'])
def test_malformed_bodies(server, body):
    status, headers, answer = ask(server, "/v1/completions", body)
    assert status == 400 and headers["content-type"] == "application/json" and "JSON" in answer["error"]["message"]


def test_harmless_fields_are_accepted(client):
    client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "x"}], max_tokens=1, extra_body={
        "tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "nvext": {"x": 1}, "unknown": [1, 2],
        "top_k": -1, "seed": -5, "temperature": None, "stop": None, "logit_bias": {"5": -100}, "max_tokens": 4.0})


def test_errors_have_the_clients_types(client):
    with pytest.raises(openai.NotFoundError) as error:
        client.completions.create(model="other", prompt="x")
    assert error.value.code == "model_not_found" and error.value.param == "model"
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model="demo", prompt="x", temperature=3)
    assert error.value.param == "temperature"
    for settings, kind in (("unavailable", openai.InternalServerError), ("full", openai.RateLimitError),
                           ("internal", openai.InternalServerError), ("invalid", openai.BadRequestError)):
        with pytest.raises(kind):
            client.completions.create(model="demo", prompt="x", user=f"fake:fail_at=0,fail={settings}")


@pytest.mark.parametrize("kind,status", [("unavailable", 503), ("full", 429), ("internal", 500), ("deadline", 504)])
def test_errors_before_the_first_token_have_a_status(server, kind, status):
    for stream in (False, True):
        code, headers, answer = ask(server, "/v1/completions", {"prompt": "x", "stream": stream,
                                                                "user": f"fake:fail_at=0,fail={kind}"})
        assert code == status and answer["error"]["message"]
        assert ("retry-after" in headers) == (status in (429, 503))


def test_errors_in_mid_stream(server):
    body = {"prompt": TEXT, "stream": True, "max_tokens": 9, "n": 2, "user": "fake:fail_at=4,fail=unavailable,delay_ms=2"}
    status, _, data = ask(server, "/v1/completions", body)
    assert status == 200 and data[-1] == "[DONE]"
    assert json.loads(data[-2])["error"]["message"] == "the worker is gone"
    server.wait_for(lambda fake: fake["active"] == 0)


def test_lost_tokens_are_an_error(server):
    status, _, answer = ask(server, "/v1/completions", {"prompt": TEXT, "user": "fake:skip_at=3"})
    assert status == 500 and "lost" in answer["error"]["message"]


@pytest.mark.parametrize("prompt,max_tokens", [("x " * 3000, 5), ("word " * 30_000, 1), (" " * 190_000, 1), ("x", 2048)])
def test_too_long_prompts(server, prompt, max_tokens):
    before = time.monotonic()
    status, _, answer = ask(server, "/v1/completions", {"prompt": prompt, "max_tokens": max_tokens})
    took = time.monotonic() - before
    message = answer["error"]["message"]
    if prompt[0] == " " and status == 200:
        return  # a vocabulary with long runs of spaces may hold this one
    assert status == 400 and answer["error"]["code"] == "context_length_exceeded", answer
    assert "2048" in message and f" {max_tokens} for the answer" in message and "in the prompt" in message
    assert took < 2  # milliseconds, on a quiet machine


def test_prompts_fit_exactly(server):
    _, _, answer = ask(server, "/v1/completions", {"prompt": [5] * 2000, "max_tokens": 48})
    assert answer["usage"]["total_tokens"] == 2048
    status, _, answer = ask(server, "/v1/completions", {"prompt": [5] * 2000, "max_tokens": 49})
    assert status == 400 and all(number in answer["error"]["message"] for number in ("2048", "2000", "49"))


# Limits and states

def test_queue_limits(start):
    server = start(requests_max=2, waiting_prompt_tokens_max=100)
    slow = {"prompt": [5] * 80, "max_tokens": 2, "stream": True, "user": "fake:first_ms=400"}
    first = server.connect()
    first.send(post("/v1/completions", slow))
    server.wait_for(lambda fake: fake["active"] == 1)
    status, headers, answer = ask(server, "/v1/completions", {"prompt": [5] * 21})
    assert status == 429 and int(headers["retry-after"]) >= 1 and "prompt tokens" in answer["error"]["message"]
    second = server.connect()
    second.send(post("/v1/completions", {**slow, "prompt": [5] * 10}))
    server.wait_for(lambda fake: fake["active"] == 2)
    status, headers, _ = ask(server, "/v1/completions", {"prompt": [5]})
    assert status == 429 and "retry-after" in headers
    assert first.response()[0] == 200 and second.response()[0] == 200
    assert ask(server, "/v1/completions", {"prompt": [5] * 90})[0] == 200


@pytest.mark.parametrize("stream", [False, True])
def test_deadlines(server, stream):
    for headers, extra in (("x-request-timeout-ms: 100\r\n", {}), ("", {"timeout": 0.1})):
        before = time.monotonic()
        body = {"prompt": TEXT, "max_tokens": 100, "stream": stream, "user": "fake:first_ms=3000", **extra}
        status, _, answer = ask(server, "/v1/completions", body, headers)
        assert status == 504 and "100 ms" in answer["error"]["message"] and time.monotonic() - before < 2.9
    server.wait_for(lambda fake: fake["active"] == 0)


def test_deadline_in_mid_stream(server):
    body = {"prompt": TEXT, "max_tokens": 1000, "stream": True, "user": "fake:delay_ms=20"}
    status, _, data = ask(server, "/v1/completions", body, "x-request-timeout-ms: 150\r\n")
    assert status == 200 and data[-1] == "[DONE]" and json.loads(data[-2])["error"]["type"] == "timeout_error"
    assert 2 < len(data) < 12
    server.wait_for(lambda fake: fake["active"] == 0)


def test_bad_timeout_header(server):
    assert ask(server, "/v1/completions", {"prompt": "x"}, "x-request-timeout-ms: soon\r\n")[0] == 400


def test_silent_streams_start_and_stay_alive(start):
    server = start(stream_start_ms=100, comment_interval_ms=100)
    connection = server.connect()
    connection.send(post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "stream": True,
                                                  "max_tokens": 2, "user": "fake:first_ms=600"}))
    began = time.monotonic()
    connection.read_until(b"\r\n\r\n")
    assert time.monotonic() - began < 0.59  # before the first token
    rest = connection.read_until(b"[DONE]\n\n")
    assert rest.count(b": keep-alive\n\n") >= 2 and b'"role":"assistant"' in rest


def test_keys(start):
    server = start(api_key="secret")
    good = openai.OpenAI(base_url=server.url + "/v1", api_key="secret", max_retries=0)
    assert good.models.list().data[0].id == "demo"
    for key in ("wrong", "secret2", "secre"):
        with pytest.raises(openai.AuthenticationError) as error:
            openai.OpenAI(base_url=server.url + "/v1", api_key=key, max_retries=0).models.list()
        assert error.value.code == "invalid_api_key"
    assert ask(server, "/v1/completions", {"prompt": "x"})[0] == 401
    assert server.get("/health").status == 200


def test_health_follows_the_generator(start):
    server = start()
    connection = server.connect()

    def get(path):
        connection.send(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        return connection.response()

    assert get("/health")[::2] == (200, b"") and get("/ready")[0] == 200
    server.tell("sick")
    for path in ("/health", "/ready"):
        status, _, body = get(path)
        assert status == 503 and "loaded" in json.loads(body)["error"]["message"]
    assert get("/live")[0] == 200
    assert ask(server, "/v1/completions", {"prompt": "x"})[0] == 503
    server.tell("well")
    assert get("/health")[0] == 200


def test_draining(start):
    server = start()
    running = server.connect()
    running.send(post("/v1/completions", {"prompt": TEXT, "max_tokens": 20, "stream": True, "user": "fake:delay_ms=20"}))
    running.read_until(b"data: ")
    idle = server.connect()
    server.tell("drain")
    idle.send(post("/v1/completions", {"prompt": "x"}))
    status, headers, body = idle.response()
    assert status == 503 and "retry-after" in headers and "shutting down" in json.loads(body)["error"]["message"]
    with pytest.raises(Exception, match="503"):
        server.get("/health")
    assert b"error" not in running.read_until(b"data: [DONE]\n\n")
    assert server.stop() == 0


# Routes

def test_models(client, server):
    models = client.models.list().data
    assert [model.id for model in models] == ["demo", "alias"] and models[0].max_model_len == 2048
    assert client.models.retrieve("alias").id == "alias"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_tokenize_and_detokenize(server, reference):
    _, _, answer = ask(server, "/tokenize", {"model": "demo", "prompt": TEXT})
    ids = reference.encode(TEXT).ids
    assert answer == {"count": len(ids), "max_model_len": 2048, "tokens": ids}
    _, _, answer = ask(server, "/tokenize", {"messages": [{"role": "user", "content": TEXT}]})
    assert answer["tokens"] == reference.encode(chat_text(("user", TEXT))).ids
    _, _, answer = ask(server, "/detokenize", {"model": "demo", "tokens": answer["tokens"]})
    assert answer == {"prompt": chat_text(("user", TEXT))}
    assert ask(server, "/detokenize", {"tokens": [10 ** 9]})[0] == 400
    assert ask(server, "/detokenize", {})[0] == 400
    assert ask(server, "/tokenize", {"prompt": 5})[0] == 400
    assert ask(server, "/tokenize", {"model": "other", "prompt": "x"})[0] == 404


def test_other_routes(server):
    connection = server.connect()

    def request(method, path):
        connection.send(f"{method} {path} HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode())
        return connection.response(method == "HEAD")

    assert "version" in json.loads(request("GET", "/version")[2])
    assert json.loads(request("GET", "/cluster/decisions")[2]) == {"decisions": []}
    assert request("POST", "/reset_prefix_cache")[0] == 200
    status, headers, page = request("GET", "/")
    assert status == 200 and headers["content-type"].startswith("text/html") and b"</html>" in page
    assert b"http://" not in page and b"https://" not in page  # self-contained
    status, headers, _ = request("HEAD", "/")
    assert status == 200 and int(headers["content-length"]) == len(page)
    assert request("GET", "/nowhere")[0] == 404 and request("GET", "/v1/completions")[0] == 405
    assert request("POST", "/health")[0] == 405
    status, headers, _ = request("OPTIONS", "/v1/chat/completions")
    assert status == 204 and headers["access-control-allow-origin"] == "*"
    assert "POST" in headers["access-control-allow-methods"]


def test_metrics(start, reference):
    server = start()
    for stream in (False, True):
        ask(server, "/v1/completions", {"prompt": TEXT, "max_tokens": 10, "stream": stream, "user": "fake:cached=4,delay_ms=1"})
    families = {family.name: family for family in text_string_to_metric_families(server.get("/metrics").read().decode())}

    def value(name, **labels):
        samples = [sample for family in families.values() for sample in family.samples if sample.name == name
                   and all(sample.labels.get(key) == item for key, item in labels.items())]
        assert len(samples) == 1, (name, samples)
        assert samples[0].labels["model_name"] == "demo" and "engine" in samples[0].labels
        return samples[0].value

    count = len(reference.encode(TEXT).ids)
    assert value("vllm:prompt_tokens_total") == 2 * count and value("vllm:generation_tokens_total") == 20
    assert value("vllm:request_success_total", finished_reason="length") == 2
    assert value("vllm:prefix_cache_queries_total") == 2 * count and value("vllm:prefix_cache_hits_total") == 8
    assert value("vllm:num_requests_running") == 0 and value("vllm:num_requests_waiting") == 0
    for name, times in (("time_to_first_token", 2), ("inter_token_latency", 18), ("e2e_request_latency", 2),
                        ("request_queue_time", 2), ("request_prefill_time", 2), ("request_decode_time", 2)):
        assert value(f"vllm:{name}_seconds_count") == times, name
    assert value("vllm:request_queue_time_seconds_sum") == pytest.approx(0.002)
    assert value("baton_request_handoff_bytes_total") == 8192


# The wire

def test_header_and_body_apart_do_not_stall(server):
    """A client without TCP_NODELAY that writes header and body apart waits 40 ms if acknowledgements are delayed."""
    connection = server.connect()
    request = post("/v1/completions", {"prompt": "x", "max_tokens": 1, "stream": True})
    split = request.index(b"\r\n\r\n") + 4
    took = {"together": [], "apart": []}
    for i in range(30):
        began = time.monotonic()
        if i % 2:
            connection.send(request)
        else:
            connection.send(request[:split])
            connection.send(request[split:])
        assert connection.response()[0] == 200
        took["together" if i % 2 else "apart"].append(time.monotonic() - began)
    assert sorted(took["apart"])[7] < sorted(took["together"])[7] + 0.03, took


def test_keep_alive_pipelining_and_chunked_bodies(server):
    connection = server.connect()
    body = json.dumps({"prompt": "x", "max_tokens": 1}).encode()
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 7]), body[i:i + 7]) for i in range(0, len(body), 7)) + b"0\r\n\r\n"
    connection.send(b"GET /live HTTP/1.1\r\n\r\n" + post("/v1/completions", body) +
                    b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked +
                    b"GET /version HTTP/1.1\r\n\r\n")
    answers = [connection.response() for _ in range(4)]
    assert [answer[0] for answer in answers] == [200] * 4
    assert json.loads(answers[1][2])["choices"][0]["text"] == json.loads(answers[2][2])["choices"][0]["text"]
    assert "version" in json.loads(answers[3][2])


def test_expect(server):
    connection = server.connect()
    body = json.dumps({"prompt": "x", "max_tokens": 1}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    connection.send(head)
    assert connection.response()[0] == 100
    connection.send(body)
    assert connection.response()[0] == 200
    connection.send(b"POST /v1/completions HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
    assert connection.response()[0] == 413


def test_http_1_0(server):
    connection = server.connect()
    body = json.dumps({"prompt": "x", "max_tokens": 3, "stream": True}).encode()
    connection.send(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    data = b""
    while more := connection.socket.recv(65536):
        data += more
    assert b"transfer-encoding" not in data and data.endswith(b"data: [DONE]\n\n")


def test_oversized_requests(server):
    for extra in (1, 5_000_000):
        connection = server.connect()
        body = b"x" * (200_000 + extra)
        connection.send(post("/v1/completions", body))  # all of it, although nobody wants it
        status, _, answer = connection.response()
        assert status == 413 and "200000" in json.loads(answer)["error"]["message"]
        assert connection.at_end()
    connection = server.connect()
    connection.send(b"GET / HTTP/1.1\r\nA: " + b"x" * 100_000)
    assert connection.response()[0] == 431


def test_malformed_http(server):
    for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
                 b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                 b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"):
        connection = server.connect()
        connection.send(data)
        status, _, body = connection.response()
        assert status == 400 and json.loads(body)["error"]["type"] == "invalid_request_error"
        assert connection.at_end()


def test_slow_loris(server):
    connection = server.connect()
    connection.send(b"GET / HTTP/1.1\r\n")
    connection.socket.settimeout(0.1)
    for _ in range(20):  # a byte now and then must not keep the connection
        connection.send(b"a")
        try:
            assert connection.response()[0] == 408
            break
        except TimeoutError:
            pass
    else:
        raise AssertionError("still waiting for the header")
    assert server.get("/live").status == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("when", ["waiting", "running"])
def test_clients_that_leave(server, stream, when):
    before = server.fake()["cancelled"]
    connection = server.connect()
    settings = "fake:first_ms=60000" if when == "waiting" else "fake:delay_ms=20"
    connection.send(post("/v1/completions", {"prompt": TEXT, "max_tokens": 2000, "stream": stream, "n": 2, "user": settings}))
    server.wait_for(lambda fake: fake["active"] == 2)
    if when == "running":
        time.sleep(0.06)
    connection.close()
    server.wait_for(lambda fake: fake["cancelled"] == before + 2 and fake["active"] == 0)


def test_slow_readers_hold_nobody_up(start):
    server = start()
    slow = server.connect()
    body = {"prompt": "x", "max_tokens": 2000, "n": 100, "stream": True, "logprobs": 20}
    slow.send(post("/v1/completions", body))  # and never reads the hundred megabytes
    began = time.monotonic()
    assert ask(server, "/v1/completions", {"prompt": "x", "max_tokens": 3})[0] == 200
    assert time.monotonic() - began < 3
    server.wait_for(lambda fake: fake["active"] == 0 and fake["cancelled"] > 0, seconds=10)


def test_large_prompts_are_prepared_elsewhere(start, reference):
    """Many clients at once, small and large, all get their own answers."""
    server = start(max_model_len=20000, inline_body_bytes=100)
    failures = []

    def work(index):
        prompt = f"client {index} " + "says something " * (index * 40)
        for stream in (False, True):
            _, headers, answer = ask(server, "/v1/completions", {"prompt": prompt, "max_tokens": 20, "stream": stream},
                                     f"x-request-id: r{index}\r\n")
            text = "".join(json.loads(item)["choices"][0]["text"] for item in answer[:-1]) if stream else answer["choices"][0]["text"]
            if text != reference.decode(echo_tokens(reference, prompt, 20)) or headers["x-request-id"] != f"r{index}":
                failures.append((index, text))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures

"""benchmarks/cpu_peers.py: reading what the engines print, dropping disturbed repetitions, medians, ratios, goals."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "benchmarks"))

import cpu_peers
import peer_engines
import peer_results
from peer_results import BATON, IK, LLAMA, LLAMA_Q4_0

BATON_OUTPUT = """\
2 threads, avx2: loaded in 0.31 s, 96.6 MB of weights, read bandwidth 33.5 GB/s
decode b1 context 0         328.1 tok/s (best    341.0)  step    3.048 ms,    165.2 tok/s of CPU time   31.7 GB/s =  95 % of read
decode b32 context 512      410.7 tok/s (best    412.2)  step   77.915 ms,    206.1 tok/s of CPU time    6.1 GB/s =  18 % of read
prefill 1500                905.4 tok/s (best    911.0)  step 1656.722 ms,    453.9 tok/s of CPU time
"""
BENCH_OUTPUT = """\
main: n_kv_max = 4352, n_batch = 2048, n_ubatch = 512, flash_attn = 1, is_pp_shared = 0, n_gpu_layers = -1, n_threads = 2

|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |
|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|
|     1 |     32 |    8 |    264 |    0.041 |   194.12 |    1.143 |   223.97 |    1.184 |   222.95 |
|   496 |     32 |    8 |   4224 |   14.201 |   279.42 |    1.882 |   136.02 |   16.083 |   262.63 |
|   256 |      0 |    1 |    256 |    0.883 |   289.92 |    0.000 |     -nan |    0.883 |   289.92 |
|   480 |     64 |    1 |    544 |    1.702 |   282.02 |    0.674 |    94.96 |    2.376 |   228.96 |

llama_perf_context_print:        load time =     170.14 ms
"""


def row(speed, share=1.0, case="prefill 256", flags=""):
    return {"case": case, "tokens_per_second": speed, "cpu_share": share, "flags": flags}


def parsed(parse, text):
    return [found for found in map(parse, text.splitlines()) if found]


def test_batons_lines():
    assert parsed(peer_engines.parse_baton, BATON_OUTPUT) == [
        ("decode b1 context 0", 328.1), ("decode b32 context 512", 410.7), ("prefill 1500", 905.4)]
    assert parsed(peer_engines.parse_baton, BENCH_OUTPUT) == []


def test_rows_of_batched_bench():
    assert parsed(peer_engines.parse_batched_bench, BENCH_OUTPUT) == [
        ("decode b8 context 0", 223.97), ("decode b8 context 512", 136.02), ("prefill 256", 289.92), ("decode b1 context 512", 94.96)]
    assert parsed(peer_engines.parse_batched_bench, BATON_OUTPUT) == []


def test_each_case_is_run_once_and_called_by_its_name():
    """What the commands ask for is what the parser calls it, and the context fits."""
    found = []
    for command in peer_engines.batched_bench_commands(["bench"], "model", "-fa on", peer_results.CASES):
        assert command.count("-pps") == 1
        options = [part for part in command[1:] if part != "-pps"]
        options = dict(zip(options[::2], options[1::2]))
        batch, steps = options["-npl"], options["-ntg"]
        for prompt in map(int, options["-npp"].split(",")):
            assert batch * (prompt + steps) <= options["-c"] and options["-c"] // batch % 256 == 0
            found.append(peer_engines.parse_batched_bench(f"|{prompt}|{steps}|{batch}|0|0|1|0|1|0|0|")[0])
    assert sorted(set(found)) == sorted(peer_results.CASES)


def test_only_the_cases_asked_for_are_run():
    commands = peer_engines.batched_bench_commands(["bench"], "model", "", ["prefill 512", "decode b8 context 512"])
    assert [command[command.index("-npp") + 1] for command in commands] == ["512", "496"]


def test_lines_come_with_the_time_and_processor_time_between_them():
    program = "import threading, time\nprint(1, flush=True)\nend = time.process_time() + 0.3\n" \
              "burn = lambda: [None for _ in iter(lambda: time.process_time() < end, False)]\n" \
              "ended = threading.Thread(target=burn)\nended.start()\nended.join()\n" \
              "print(2, flush=True)\ntime.sleep(0.3)\nprint(3, flush=True)\ntime.sleep(0.1)"
    (_, _, _), (_, busy_wall, busy), (_, idle_wall, idle) = peer_engines.timed_lines([sys.executable, "-c", program])
    assert 0.25 < busy <= busy_wall + 0.05
    assert idle_wall >= 0.25 and -0.05 < idle < 0.1


def test_a_program_that_fails_is_an_error():
    with pytest.raises(SystemExit, match="(?s)ended with 3.*no such model"):
        list(peer_engines.timed_lines([sys.executable, "-c", "print('no such model'); raise SystemExit(3)"]))


def test_peers_without_avx2_are_refused():
    line = "system_info: n_threads = 2 | CPU : SSE3 = 1 | AVX2 = 1 | F16C = 1 |"
    assert peer_engines.system_info(f"log\n{line}\nmore") == line
    for text in ("system_info: n_threads = 2 | AVX2 = 0 |", "nothing"):
        with pytest.raises(SystemExit, match="AVX2"):
            peer_engines.system_info(text)


def test_disturbed_repetitions_are_dropped():
    entry = peer_results.summary([row(100), row(10, 0.94), row(104, 0.95), row(96), row(5, 0.5)], wanted=3)
    assert entry == {"tokens_per_second": 100, "cpu_share": 1.0, "repetitions": 3, "dropped": 2, "undisturbed": True}


def test_too_few_undisturbed_repetitions_are_said():
    entry = peer_results.summary([row(100), row(10, 0.94), row(50, 0.9)], wanted=3)
    assert (entry["tokens_per_second"], entry["repetitions"], entry["undisturbed"]) == (100, 1, False)
    entry = peer_results.summary([row(10, 0.5), row(50, 0.9)], wanted=1)
    assert (entry["tokens_per_second"], entry["repetitions"], entry["dropped"], entry["undisturbed"]) == (50, 0, 2, False)


def test_fastest_flags_by_undisturbed_repetitions():
    rows = [row(100, flags="on"), row(120, 0.6, flags="on"), row(110, flags="off"), row(50, 0.6, flags="off")]
    assert peer_results.best_variant(rows) == "off"
    assert peer_results.best_variant([row(90, 0.5, flags="on"), row(80, flags="off")]) == "on"


def test_all_flags_first_then_the_fastest_where_repetitions_lack():
    first = cpu_peers.flags_to_run(LLAMA, [], 2)
    assert list(first) == ["-fa on", "-fa off"] and all(cases == list(peer_results.CASES) for cases in first.values())
    rows = [row(10, case=case, flags="-fa on") for case in peer_results.CASES for _ in range(2)]
    rows += [row(20 if case == "prefill 256" else 5, case=case, flags="-fa off") for case in peer_results.CASES]
    assert cpu_peers.flags_to_run(LLAMA, rows, 2) == {"-fa off": ["prefill 256"]}
    assert cpu_peers.flags_to_run(LLAMA, rows + [row(20, flags="-fa off")], 2) == {}
    assert cpu_peers.flags_to_run(BATON, [row(1, case=case) for case in peer_results.CASES[1:]], 1) == {"": ["decode b1 context 0"]}


def test_rounds_are_interleaved_and_end():
    calls = []

    def measure(name, rows):
        calls.append(name)
        return [row(1, 0.5 if name == "never" else 1)]

    rows = cpu_peers.interleave(["once", "never"], measure, lambda name, rows: rows[-1]["cpu_share"] == 1, 3, float("inf"), {})
    assert calls == ["once", "never", "never", "never"] and len(rows["never"]) == 3
    calls.clear()
    cpu_peers.interleave(["once", "never"], measure, lambda name, rows: False, 3, 0, {})
    assert calls == ["once", "never"]  # each has its first, however late
    calls.clear()
    rows = cpu_peers.interleave(["once", "never"], measure, lambda name, rows: len(rows) == 2, 3, float("inf"), {"once": [row(1)] * 2})
    assert calls == ["never", "never"] and len(rows["once"]) == 2  # an earlier run's repetitions count


def test_shares_of_the_hardware():
    limit, share = peer_results.hardware_share("decode b1 context 0", 300, 30, 600)
    assert limit == "read" and share == pytest.approx(300 * 96.58e6 / 30e9)
    limit, share = peer_results.hardware_share("decode b8 context 512", 800, 40, 600)
    assert limit == "read" and share == pytest.approx(100 * (96.58e6 + 8 * 512 * 23040) / 40e9)
    limit, share = peer_results.hardware_share("prefill 512", 1330, 40, 600)
    assert limit == "integer" and share == pytest.approx(1330 * 2 * 106.17e6 / 600e9)
    limit, share = peer_results.hardware_share("decode b32 context 0", 1100, 40, 600)
    assert limit == "integer" and share == pytest.approx(1100 * 2 * 134.48e6 / 600e9)


def result(baton_speed):
    speeds = {BATON: baton_speed, IK: 100, LLAMA: 50, LLAMA_Q4_0: 80}
    case = peer_results.case_result("prefill 1500", {engine: [row(speed)] * 3 for engine, speed in speeds.items()}, 3, 30, 600)
    server = {"command": ["x"], "answer": "Paris", "tokens_per_second": 100, "cpu_share": 0.99, "ttft_p50_ms": 500, "itl_p50_ms": 10,
              "rss_mb": 500, "pss_mb": 300, "health_s": 0.3}
    servers = [peer_results.server_result(BATON, [server] * 3, 3), peer_results.server_result(LLAMA, [{**server, "tokens_per_second": 20}], 3)]
    out = {"cases": [case], "servers": servers, "http_ratios": peer_results.ratios({BATON: 100, LLAMA: 20}, peer_results.HTTP_GOALS),
           "machine": {"cpu": "some processor", "cores": 2}, "date": "2026-11-24T00:00:00Z", "commit": "abc",
           "ceilings": {"read_gb_s": 30, "integer_gop_s": 600, "instructions": "vpdpbusd"}, "dropped": 1, "rows": 9, "notes": []}
    return {**out, "missed": peer_results.missed(out)}


def test_ratios_and_missed_goals():
    reached = result(181)
    assert reached["cases"][0]["ratios"][LLAMA_Q4_0] == {"ratio": 181 / 80, "goal": None, "met": True}
    assert reached["missed"] == ["memory after 8 clients: 500 MB, goal 400 MB"]
    assert result(140)["missed"][:2] == [f"prefill 1500: 1.40× {IK}, goal 1.45×", f"prefill 1500: 2.80× {LLAMA}, goal 3.6×"]


def test_table_shows_what_is_missed_and_what_was_disturbed():
    text = peer_results.table(result(140))
    line = next(line for line in text.splitlines() if line.startswith("prefill 1500"))
    assert "1.40× (1.45×) !" in line and "2.80× (3.6×) !" in line and line.endswith("1.75×")
    assert "5.00× (4.8×)" in text and "~20" in text and "~100" not in text
    assert "dropped for less than 95% of the cores: 1 of 9" in text and "goal missed: memory" in text

"""What `make bench-cpu` makes of its repetitions: which count, medians, ratios, goals, the tables. No processes, no clocks."""
import statistics

from processes import WEIGHT_BYTES

CPU_SHARE_MIN = 0.95  # of the machine's cores, which a repetition must have had
IK, LLAMA, LLAMA_Q4_0 = "ik_llama.cpp Q4_1", "llama.cpp Q4_1", "llama.cpp Q4_0"
BATON = "Baton Q4_1"
PEERS = (IK, LLAMA, LLAMA_Q4_0)
MULTIPLICATIONS = 106.17e6  # of one token in the layers of the demo model
HEAD_MULTIPLICATIONS = 28.31e6  # of one token in its LM head, which a prompt needs for the last token only
KV_BYTES = 23040            # of one token, in FP16

# Case → how many times as fast as each peer Baton is to be, in the order of PEERS.
GOALS = {
    "decode b1 context 0": (1.7, 2.1, 2.0),
    "decode b1 context 512": (1.8, 2.9, 2.8),
    "decode b8 context 0": (2.7, 4.6, 2.8),
    "decode b8 context 512": (2.0, 5.2, 3.9),
    "decode b32 context 0": (2.1, 4.4, 2.3),
    "prefill 256": (1.55, 5.0, 2.3),
    "prefill 512": (1.6, 4.7, 2.25),
    "prefill 1500": (1.45, 3.6, None)}
CASES = tuple(GOALS)
HTTP_GOALS = (None, 4.8, 2.6)
READ_SHARE_GOAL, HEALTH_GOAL_S, MEMORY_GOAL_MB = 0.85, 0.4, 400


def batch_and_context(case):
    """Of a decode case: "decode b8 context 512" → (8, 512)."""
    _, batch, _, context = case.split()
    return int(batch[1:]), int(context)


def undisturbed(rows):
    return [row for row in rows if row["cpu_share"] >= CPU_SHARE_MIN]


def summary(rows, wanted):
    """The median of the repetitions that had their cores. Where none had, the least disturbed one stands in; where fewer than
    `wanted` had, `undisturbed` is false: the machine was shared, and such a speed is a lower bound."""
    good = undisturbed(rows)
    counted = good or [max(rows, key=lambda row: row["cpu_share"])]
    return {"tokens_per_second": statistics.median(row["tokens_per_second"] for row in counted),
            "cpu_share": statistics.median(row["cpu_share"] for row in counted),
            "repetitions": len(good), "dropped": len(rows) - len(good), "undisturbed": len(good) >= wanted}


def best_variant(rows):
    """Of a peer's repetitions of one case, the flags with the best median: undisturbed ones decide where there are any."""
    def speed(flags):
        mine = [row for row in rows if row["flags"] == flags]
        return statistics.median(row["tokens_per_second"] for row in undisturbed(mine) or mine)
    return max(dict.fromkeys(row["flags"] for row in rows), key=speed)


def hardware_share(case, tokens_per_second, read_gb_s, peak_gop_s):
    """Which ceiling binds, and the share of it: reading weights and KV for decode up to batch 8, integer operations above."""
    if case.startswith("decode"):
        batch, context = batch_and_context(case)
        if batch <= 8:
            bytes_per_step = WEIGHT_BYTES + batch * context * KV_BYTES
            return "read", tokens_per_second / batch * bytes_per_step / (read_gb_s * 1e9)
    multiplications = MULTIPLICATIONS + (HEAD_MULTIPLICATIONS if case.startswith("decode") else 0)
    return "integer", 2 * multiplications * tokens_per_second / (peak_gop_s * 1e9)


def ratios(speeds, goals):
    """Peer → Baton's speed over its, and the goal; peers without a speed are left out."""
    return {peer: {"ratio": speeds[BATON] / speeds[peer], "goal": goal, "met": goal is None or speeds[BATON] / speeds[peer] >= goal}
            for peer, goal in zip(PEERS, goals) if peer in speeds}


def case_result(case, rows_of, wanted, read_gb_s, peak_gop_s):
    """Of one case: engine → rows becomes engine → summary, with ratios and the share of the hardware's limit."""
    engines = {}
    for engine, rows in rows_of.items():
        flags = best_variant(rows)
        engines[engine] = {"flags": flags, **summary([row for row in rows if row["flags"] == flags], wanted)}
    speeds = {engine: entry["tokens_per_second"] for engine, entry in engines.items()}
    limit, share = hardware_share(case, speeds[BATON], read_gb_s, peak_gop_s)
    return {"case": case, "engines": engines, "ratios": ratios(speeds, GOALS[case]), "limit": limit, "share_of_limit": share}


def server_result(name, rows, wanted):
    """Of one server: medians over its repetitions."""
    good = undisturbed(rows) or [max(rows, key=lambda row: row["cpu_share"])]
    def median(key):
        return statistics.median(row[key] for row in good)
    return {"server": name, "command": rows[-1]["command"], "answer": rows[-1]["answer"], **summary(rows, wanted),
            **{key: median(key) for key in ("ttft_p50_ms", "itl_p50_ms", "rss_mb", "pss_mb")},
            "health_s": statistics.median(row["health_s"] for row in rows)}


def missed(result):
    """Sentences, one for each goal that was not reached."""
    out = []
    for case in result["cases"]:
        out += [f"{case['case']}: {entry['ratio']:.2f}× {peer}, goal {entry['goal']:g}×"
                for peer, entry in case["ratios"].items() if not entry["met"]]
        if case["case"].startswith("decode b1 ") and case["share_of_limit"] < READ_SHARE_GOAL:
            out.append(f"{case['case']}: {case['share_of_limit']:.0%} of the read bandwidth, goal {READ_SHARE_GOAL:.0%}")
    out += [f"over HTTP: {entry['ratio']:.2f}× {peer}, goal {entry['goal']:g}×"
            for peer, entry in result["http_ratios"].items() if not entry["met"]]
    for server in result["servers"]:
        if server["server"] == BATON and server["health_s"] > HEALTH_GOAL_S:
            out.append(f"start to /health: {server['health_s']:.2f} s, goal {HEALTH_GOAL_S} s")
        if server["server"] == BATON and server["rss_mb"] > MEMORY_GOAL_MB:
            out.append(f"memory after 8 clients: {server['rss_mb']:.0f} MB, goal {MEMORY_GOAL_MB} MB")
    return out


def _speed(entry):
    return f"{'' if entry['undisturbed'] else '~'}{entry['tokens_per_second']:.0f}"


def _ratio(entry, ratio):
    goal = "" if ratio["goal"] is None else f" ({ratio['goal']:g}×)"
    return f"{_speed(entry)}  {ratio['ratio']:.2f}×{goal}{'' if ratio['met'] else ' !'}"


def table(result):
    """The text that is printed: tokens/s, how many times as fast Baton is, and (the goal); "!" where it is missed."""
    machine, ceilings = result["machine"], result["ceilings"]
    lines = [f"{machine['cpu']}, {machine['cores']} cores, {result['date']}, commit {result['commit']}",
             f"reading memory {ceilings['read_gb_s']:.1f} GB/s, {ceilings['integer_gop_s']:.0f} G integer operations/s "
             f"({ceilings['instructions']})", "",
             f"{'tokens/s':22} {'Baton':>7} {'of the limit':>13}" + "".join(f"{peer:>27}" for peer in PEERS)]
    for case in result["cases"]:
        engines = case["engines"]
        lines.append(f"{case['case']:22} {_speed(engines[BATON]):>7} {case['share_of_limit']:>5.0%} {case['limit']:7}" + "".join(
            f"{_ratio(engines[peer], case['ratios'][peer]) if peer in engines else '-':>27}" for peer in PEERS))
    servers = {server["server"]: server for server in result["servers"]}
    if BATON in servers:
        lines.append(f"{'HTTP, 8 × 500 in/64 out':23}{_speed(servers[BATON]):>7} {'':13}" + "".join(
            f"{_ratio(servers[peer], result['http_ratios'][peer]) if peer in servers else '-':>27}" for peer in PEERS))
    for name, server in servers.items():
        lines.append(f"{name}: healthy after {server['health_s']:.2f} s; after 8 clients {server['rss_mb']:.0f} MB resident "
                     f"({server['pss_mb']:.0f} with shared pages divided); TTFT p50 {server['ttft_p50_ms']:.0f} ms, "
                     f"ITL p50 {server['itl_p50_ms']:.1f} ms")
    lines += ["", f"dropped for less than {CPU_SHARE_MIN:.0%} of the cores: {result['dropped']} of {result['rows']} repetitions"]
    lines += [f"note: {note}" for note in result["notes"]]
    lines += [f"goal missed: {sentence}" for sentence in result["missed"]]
    return "\n".join(lines)

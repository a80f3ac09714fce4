"""Baton beside llama.cpp and ik_llama.cpp on this machine's processor: prints a table with the goals beside it, and writes
benchmarks/results/cpu_peers_<cpu>_<date>.json. `make bench-cpu` builds the peers first. README.md in this folder says how.
"""
import argparse
import datetime
import json
import pathlib
import statistics
import sys
import time

import machine
import peer_engines
import peer_results
import peer_servers
import processes
from peer_results import BATON, PEERS


def say(text):
    print(text, file=sys.stderr, flush=True)


def flags_to_run(engine, rows, wanted):
    """Flags → cases that still need repetitions: every variant of a case first, then its fastest one."""
    todo = {}
    for case in peer_results.CASES:
        mine = [row for row in rows if row["case"] == case]
        best = peer_results.best_variant(mine) if mine else None
        if len(peer_results.undisturbed([row for row in mine if row["flags"] == best])) < wanted:
            for flags in (best,) if mine else peer_engines.PEER_FLAGS.get(engine, ("",)):
                todo.setdefault(flags, []).append(case)
    return todo


def interleave(names, measure, enough, rounds, deadline, earlier):
    """Rounds over all that still lack repetitions: name → rows. `measure(name, rows so far)` returns more of them."""
    rows = {name: list(earlier.get(name, [])) for name in names}
    for number in range(rounds):
        lacking = [name for name in names if not rows[name] or (not enough(name, rows[name]) and time.monotonic() < deadline)]
        if not lacking:
            break
        for name in lacking:
            say(f"round {number + 1}: {name}")
            rows[name] += measure(name, rows[name])
    return rows


def measure_engines(effort, earlier, samples):
    def measure(engine, rows):
        if engine == BATON:
            samples.append(ceiling_sample())  # beside what is compared with them, round by round
        return [row for flags, cases in flags_to_run(engine, rows, effort.repetitions).items()
                for row in peer_engines.measure(engine, flags, cases)]

    return interleave([BATON, *PEERS], measure, lambda engine, rows: not flags_to_run(engine, rows, effort.repetitions),
                      2 * effort.repetitions, time.monotonic() + effort.limit_s, earlier)


def measure_servers(effort, earlier):
    return interleave(peer_servers.SERVERS, lambda name, _: [peer_servers.measure(name)],
                      lambda _, rows: len(peer_results.undisturbed(rows)) >= effort.repetitions,
                      2 * effort.repetitions, time.monotonic() + effort.limit_s, earlier)


def ceilings(samples):
    """Medians of what the ceilings' programs said in each round and at the end of the run."""
    reads, peaks = zip(*samples)
    return {"read_gb_s": statistics.median(read["median_gb_s"] for read in reads), "read_best_gb_s": max(read["best_gb_s"] for read in reads),
            "integer_gop_s": statistics.median(peak["median_gop_s"] for peak in peaks), "instructions": peaks[0]["instructions"]}


def ceiling_sample():
    return processes.ceiling("read_bandwidth"), processes.ceiling("integer_peak")


def previous_run(path):
    """The repetitions and ceilings of an interrupted run; of the same program on the same machine only."""
    before = json.loads(path.read_text())
    here = (machine.describe()["cpu"], machine.git_commit(processes.ROOT))
    found = (before["machine"]["cpu"], before["commit"])
    if here != found:
        raise SystemExit(f"{path}: expected a run of {here}, found one of {found}; start anew")
    return before["repetitions"]["engines"], before["repetitions"]["servers"], before["ceiling_samples"]


def assemble(engines, servers, samples, effort):
    hardware = ceilings(samples)
    now = datetime.datetime.now(datetime.timezone.utc)
    wanted = effort.repetitions
    result = {"benchmark": "cpu_peers", "schema": 1, "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
              "commit": machine.git_commit(processes.ROOT), "model": processes.MODEL.name, "machine": machine.describe(),
              "threads": peer_engines.THREADS, "peers": (peer_engines.PEERS / "done").read_text().strip(),
              "http_load": peer_servers.LOAD, "ceilings": hardware,
              "ceiling_samples": samples,
              "cpu_share_min": peer_results.CPU_SHARE_MIN}
    result["cases"] = [peer_results.case_result(
        case, {engine: [row for row in rows if row["case"] == case] for engine, rows in engines.items()}, wanted,
        hardware["read_gb_s"], hardware["integer_gop_s"]) for case in peer_results.CASES] if engines else []
    result["servers"] = [peer_results.server_result(name, rows, wanted) for name, rows in servers.items()]
    speeds = {server["server"]: server["tokens_per_second"] for server in result["servers"]}
    result["http_ratios"] = peer_results.ratios(speeds, peer_results.HTTP_GOALS) if speeds else {}
    everything = [row for rows in [*engines.values(), *servers.values()] for row in rows]
    result["rows"], result["dropped"] = len(everything), len(everything) - len(peer_results.undisturbed(everything))
    result["missed"] = peer_results.missed(result)
    entries = [entry for case in result["cases"] for entry in case["engines"].values()] + result["servers"]
    lacking = sum(not entry["undisturbed"] for entry in entries)
    result["notes"] = [f"the machine was shared: {lacking} of {len(entries)} speeds (~) rest on fewer than {wanted} undisturbed "
                       "repetitions, and are lower bounds"] if lacking else []
    result["repetitions"] = {"engines": engines, "servers": servers}
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3, help="undisturbed ones that each speed needs; twice as many are tried [3]")
    parser.add_argument("--limit-s", type=float, default=240, help="seconds after which no further round of engines, or of servers, begins [240]")
    parser.add_argument("--only", choices=("engines", "servers"), help="one half of the run")
    parser.add_argument("--out", type=pathlib.Path, help="file [benchmarks/results/cpu_peers_<cpu>_<date>.json]")
    parser.add_argument("--go-on", type=pathlib.Path, metavar="FILE", help="an earlier run's result, whose repetitions count as well")
    effort = parser.parse_args()
    engines, servers, samples = previous_run(effort.go_on) if effort.go_on else ({}, {}, [])
    proof = {"ik_llama.cpp": peer_engines.prove_ik(), "llama.cpp": peer_engines.prove_llama()}
    if effort.only != "servers":
        engines = measure_engines(effort, engines, samples)
    if effort.only != "engines":
        servers = measure_servers(effort, servers)
    samples.append(ceiling_sample())
    result = {**assemble(engines, servers, samples, effort), "peers_are_real": proof}
    path = machine.write_result(result, processes.ROOT, effort.out)
    print(peer_results.table(result))
    print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()

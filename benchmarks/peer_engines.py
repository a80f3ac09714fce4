"""Engines without HTTP: runs each one's own benchmark program, and turns what it prints into repetitions.

A repetition is {"case", "tokens_per_second", "cpu_share", "flags"}. Its CPU share is taken from outside, for Baton and the peers
alike: the processor time of the program's threads between two of its lines, over that time on every core.
"""
import re
import subprocess
import tempfile
import time

import processes
from peer_results import BATON, IK, LLAMA, LLAMA_Q4_0, batch_and_context

THREADS = 2
VENV = processes.ROOT / ".venv-peers"
PEERS = VENV / "peers"
Q4_0 = PEERS / processes.MODEL.name.replace("Q4_1", "Q4_0")
STEPS = {1: 64, 8: 32, 32: 32}  # decoded tokens of a row, by batch
CONTEXTS = {1: (0, 0, 512), 8: (0, 512), 32: (0,)}  # of the rows of one program run: short ones come twice
RUN_LIMIT_S = 300
# Tried in the first round; each case then keeps the fastest. -fa: attention in one kernel; -rtr: weights re-packed at load.
PEER_FLAGS = {IK: ("-fa on", "-fa on -rtr", "-fa off"), LLAMA: ("-fa on", "-fa off"), LLAMA_Q4_0: ("-fa on", "-fa off")}


def timed_lines(command):
    """Each line of the program's output with (seconds, CPU seconds) since the line before."""
    with tempfile.TemporaryDirectory() as folder:  # some programs leave logs where they run
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
                                   errors="replace")
        output, wall, cpu, started = [], time.monotonic(), 0.0, time.monotonic()
        try:
            for line in process.stdout:
                output.append(line)
                now, used = time.monotonic(), _cpu_seconds(process.pid, cpu)
                yield line, now - wall, used - cpu
                wall, cpu = now, used
                if now - started > RUN_LIMIT_S:
                    raise SystemExit(f"{command[0]} took longer than {RUN_LIMIT_S} s")
            if process.wait(timeout=30) != 0:
                raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{''.join(output[-30:])}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _cpu_seconds(pid, before):
    """Of all its threads, those that have ended too; `before` once the process has ended, whose last lines are no repetitions."""
    try:
        return time.clock_gettime(~pid << 3 | 2)  # the clock that clock_getcpuclockid(3) names
    except OSError:
        return before


def parse_baton(line):
    """(case, tokens/s) of a line of engine_speed_oracle, or None."""
    found = re.match(r"(decode b\d+ context \d+|prefill \d+) +([\d.]+) tok/s ", line)
    return (found[1], float(found[2])) if found else None


def parse_batched_bench(line):
    """(case, tokens/s) of a row of llama-batched-bench's table, of either peer, or None: rows that decode count as decode."""
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    if len(cells) != 10 or not cells[0].isdigit():
        return None
    prompt, steps, batch = int(cells[0]), int(cells[1]), int(cells[2])
    if steps == 0:
        return f"prefill {prompt}", float(cells[5])
    return f"decode b{batch} context {0 if prompt == 1 else prompt + steps // 2}", float(cells[7])


def rows(command, parse, flags):
    for line, wall, cpu in timed_lines(command):
        if parsed := parse(line):
            yield {"case": parsed[0], "tokens_per_second": parsed[1], "cpu_share": cpu / (wall * THREADS), "flags": flags}


def baton_command(seconds=1):
    return [processes.BUILD / "tests" / "engine_speed_oracle", processes.MODEL, f"threads={THREADS}", f"seconds={seconds}"]


def batched_bench_commands(program, model, flags, cases):
    """The runs of llama-batched-bench that cover `cases`: one for all prefills, one for each batch size. One prompt is computed and
    given to all sequences: llama.cpp copies its KV, ik_llama.cpp shares it. A decode row starts half its steps before its context,
    so that the context is the mean; an empty one starts at 1 token."""
    common = [*program, "-m", model, "-t", THREADS, "-tb", THREADS, "-b", 2048, "-ub", 512, "-pps", *flags.split()]
    out = []
    prompts = [case.split()[1] for case in cases if case.startswith("prefill")]
    if prompts:
        out.append([*common, "-c", 2048, "-npl", 1, "-ntg", 0, "-npp", ",".join(prompts)])
    for batch, steps in STEPS.items():
        wanted = {batch_and_context(case)[1] for case in cases if case.startswith(f"decode b{batch} ")}
        starts = [max(1, context - steps // 2) for context in CONTEXTS[batch] if context in wanted]
        if starts:
            tokens = batch * -(-(max(starts) + steps) // 256) * 256  # llama.cpp rounds each sequence's share up to 256
            out.append([*common, "-c", tokens, "-npl", batch, "-ntg", steps, "-npp", ",".join(map(str, starts))])
    return out


def program_of(engine):
    """ik_llama.cpp's package is a library for Python; ik_llama_bench.py takes the flags and prints the table of llama-batched-bench."""
    if engine == IK:
        return [VENV / "bin" / "python", processes.ROOT / "benchmarks" / "ik_llama_bench.py"]
    return [PEERS / "llama.cpp" / "bin" / "llama-batched-bench"]


def measure(engine, flags, cases):
    """Repetitions of `cases`, and perhaps of others that the same run had anyway."""
    if engine == BATON:
        return list(rows(baton_command(), parse_baton, flags))
    model = Q4_0 if engine == LLAMA_Q4_0 else processes.MODEL
    return [row for command in batched_bench_commands(program_of(engine), model, flags, cases)
            for row in rows(command, parse_batched_bench, flags)]


def prove_ik():
    """That ik_llama.cpp was built for this processor and writes text: {"system_info", "answer"}."""
    command = batched_bench_commands(program_of(IK), processes.MODEL, "", ["decode b8 context 0"])[0]
    output = "".join(line for line, _, _ in timed_lines(command))
    answer = re.search(r"^text: .*", output, re.MULTILINE)
    if not answer or "Paris" not in answer[0]:
        raise SystemExit(f"ik_llama.cpp does not know what the capital of France is: {output[-2000:]}")
    return {"system_info": system_info(output), "answer": answer[0]}


def system_info(text):
    """The line in which ik_llama.cpp says what it was compiled for; an error where AVX2 is not among it."""
    found = re.search(r"system_info: .*", text)
    if not found or "AVX2 = 1" not in found[0]:
        raise SystemExit(f"expected a peer built with AVX2, found {found[0] if found else 'no system_info line'}")
    return found[0]


def prove_llama():
    """That llama.cpp's dot product of Q4_1, in the program that is measured, is AVX code: how many lines of it are. (This
    version no longer says what it was compiled for; that it writes text is seen by its server's answer.)"""
    command = ["objdump", "-d", "--no-show-raw-insn", "--disassemble=ggml_vec_dot_q4_1_q8_1", str(program_of(LLAMA)[0])]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = len(re.findall(r"%[yz]mm\d+.*\n", code))
    if lines == 0:
        raise SystemExit(f"expected vector instructions in {command[-2]} of {command[-1]}, found none")
    return {"vector_instructions_of_ggml_vec_dot_q4_1_q8_1": lines}

"""What machine this is, for the head of every result."""
import json
import os
import pathlib
import platform
import re
import subprocess

FLAGS = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16", "hypervisor")


def _fields(path):
    """The first value of each "name : value" line."""
    found = {}
    for line in pathlib.Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found


def describe():
    cpu = _fields("/proc/cpuinfo")
    flags = cpu.get("flags", "").split()
    model = f"{cpu.get('model name', platform.processor())} family {cpu.get('cpu family', '?')} model {cpu.get('model', '?')}"
    return {"cpu": model, "cores": os.cpu_count(), "flags": [flag for flag in FLAGS if flag in flags],
            "memory_gb": round(int(_fields("/proc/meminfo")["MemTotal"].split()[0]) / 1e6, 1),
            "kernel": platform.release(), "load_average": os.getloadavg()}


def git_commit(root):
    """The commit, with "+" when tracked files differ from it; None outside a checkout."""
    try:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        changes = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")


def write_result(result, root, path=None):
    """Writes a result with its "benchmark", "machine" and "date" to `path`, else to benchmarks/results/. Returns the path."""
    if path is None:
        cpu = re.sub("[^a-z0-9]+", "_", result["machine"]["cpu"].lower()).strip("_")
        path = root / "benchmarks" / "results" / f"{result['benchmark']}_{cpu}_{result['date'][:10]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path

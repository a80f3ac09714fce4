"""`baton bench engine` on the CPU: every kind of step, with floors, shares and where the time goes."""

import json
import subprocess

import pytest


@pytest.fixture(scope="module")
def report(build_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "engine.json"
    done = subprocess.run(
        [build_dir / "baton", "bench", "engine", "--shape", "smollm2-135m", "--device", "cpu", "--threads", "2",
         "--prefill", "48", "--decode", "1,3", "--mixed", "2x16", "--context", "64", "--seconds", "0.1", "--json", path],
        capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text())


def test_every_step_is_reported(report):
    table, result = report
    names = [step["name"] for step in result["steps"]]
    assert names == ["prefill 48", "decode 1 x 64", "decode 3 x 64", "mixed 2 x 64 + 16"]
    assert all(name in table for name in names)
    assert result["model"] == "smollm2-135m" and "2 threads" in result["device"]
    assert all(result["ceilings"][key] > 1e9 for key in result["ceilings"])


def test_time_is_accounted_for(report):
    for step in report[1]["steps"]:
        assert 0 < step["floor_us"] and 0 < step["best_us"] <= step["median_us"]
        families = step["families_us"]
        assert families["gemm"] > 0 and families["attention"] > 0 and families["sampling"] > 0
        assert sum(families.values()) == pytest.approx(step["median_us"])
    steps = {step["name"]: step for step in report[1]["steps"]}
    assert steps["decode 1 x 64"]["floor_us"] <= steps["decode 3 x 64"]["floor_us"] < steps["prefill 48"]["floor_us"] * 48


@pytest.mark.parametrize("arguments, message", [
    ([], "expected MODEL, or --shape NAME"),
    (["--shape", "nothing"], "no shape is called 'nothing'"),
    (["--shape", "smollm2-135m", "--mixed", "2by3"], "--mixed: expected ROWSxTOKENS"),
])
def test_mistakes_are_named(build_dir, arguments, message):
    done = subprocess.run([build_dir / "baton", "bench", "engine", "--device", "cpu", *arguments],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert message in done.stderr

"""The demo model, expanded to BF16, on the GPU against what the CPU backend answered: the same token wherever the CPU's
best is ahead of its second by more than 0.5 in log-probability, in prefill and in decode steps. Needs no packages:

    python3 demo_model_check.py MODEL.gguf

demo_answers.json holds the CPU's answers; tests/engine_test.py checks that they are still its answers. layer_oracle is
sought beside this file and under build/tests.
"""

import json
import pathlib
import subprocess
import sys

MARGIN = 0.5
here = pathlib.Path(__file__).resolve().parent


def find(program):
    for folder in (here, here.parents[1] / "build" / "tests"):
        if (folder / program).exists():
            return folder / program
    sys.exit(f"demo_model_check.py: {program} is not built; run make where nvcc is found")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    cases = json.loads((here / "demo_answers.json").read_text())
    requests = "".join(json.dumps({"tokens": case["prompt"], "force": case["tokens"]}) + "\n" for case in cases)
    failed = False
    for options in (["kv=BF16"], ["kv=BF16", "chunk=100"], ["kv=FP8"]):
        process = subprocess.run([find("layer_oracle"), sys.argv[1], *options], input=requests, text=True,
                                 capture_output=True, timeout=120)
        if process.returncode != 0:
            sys.exit(f"layer_oracle: {process.stderr}")
        answers = [json.loads(line) for line in process.stdout.splitlines()]
        assert len(answers) == len(cases)
        sure, all_, same, wrong = 0, 0, 0, []
        for number, (case, answer) in enumerate(zip(cases, answers)):
            for i, (token, margin) in enumerate(zip(case["tokens"], case["margins"])):
                got = answer["top"][i][0][0]
                all_, same = all_ + 1, same + (got == token)
                sure += margin > MARGIN
                if margin > MARGIN and got != token:
                    wrong.append(f"prompt {number} token {i}: {got}, not {token} (ahead by {margin:.2f})")
        must = options[0] == "kv=BF16"  # FP8 rounds K and V, which the CPU does not
        print(f"{' '.join(options):20} {sure} sure tokens of {all_}, {len(wrong)} of them differ; {same} of all are the same")
        if wrong and must:
            print("\n".join(wrong[:10]))
        failed = failed or (must and bool(wrong)) or sure < 100
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

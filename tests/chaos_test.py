"""The killer in its short form; `make chaos` runs the long one."""
import chaos


def test_no_client_notices_kills_and_freezes(build_dir, tmp_path):
    load = chaos.Load(requests=1200, prompts=60)
    strikes = chaos.Strikes(kill_every_s=(0.6, 1.5), freeze_every_s=(2.0, 4.0), freeze_s=1.5)
    outcome = chaos.run(build_dir, tmp_path, ["--sim", chaos.SIM_PROFILE], 4, 2, load, strikes)
    assert not outcome.failed and not outcome.wrong
    assert outcome.finished + outcome.left == load.requests
    assert outcome.kills > 0 and outcome.left > 0

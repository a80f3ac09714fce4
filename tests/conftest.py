import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def build_dir():
    return pathlib.Path(os.environ.get("BATON_BUILD", ROOT / "build"))


@pytest.fixture(scope="session")
def demo_model():
    return pathlib.Path(os.environ.get("BATON_MODEL", ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"))

"""The layers of src/ hold, and the check that says so can fail."""
import importlib.util
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent


def load_check():
    spec = importlib.util.spec_from_file_location("check_layering", ROOT / "scripts" / "check_layering.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_includes_follow_the_layers():
    assert list(load_check().problems(ROOT / "src")) == []


def make_folder(source, name, dependencies, include):
    folder = source / name
    folder.mkdir(parents=True)
    (folder / "CMakeLists.txt").write_text(f"baton_folder({name} DEPS {dependencies})\n")
    (folder / "x.cc").write_text(f'#include "{include}"\n')


def test_an_undeclared_include_is_found(tmp_path):
    make_folder(tmp_path / "src", "kv", "core base", "model/model.h")
    assert [p for p in load_check().problems(tmp_path / "src") if "includes model" in p]


def test_a_declared_folder_of_the_same_layer_is_found(tmp_path):
    make_folder(tmp_path / "src", "kv", "core model", "model/model.h")
    assert [p for p in load_check().problems(tmp_path / "src") if "declares model" in p]

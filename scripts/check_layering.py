"""Checks that includes follow the layers: a folder of src/ includes itself and the folders that it declares, all of lower layers.

The layers are listed in docs/architecture.md's table and here; each folder's dependencies are the DEPS of its CMakeLists.txt.
"""
import pathlib
import re
import sys

LAYERS = [
    ["base"],
    ["core", "proto", "device"],
    ["cluster", "rpc", "http", "kv", "transfer", "text", "model", "backend"],
    ["router", "scheduler", "engine"],
    ["frontend", "worker", "supervisor", "planner", "bench"],
    ["app"],
]
LAYER_OF = {folder: layer for layer, folders in enumerate(LAYERS) for folder in folders}


def declared_dependencies(folder):
    text = (folder / "CMakeLists.txt").read_text()
    match = re.search(r"baton_folder\(\w+ DEPS ([a-z ]+?)(?: LIBS|\))", text.replace("\n", " "))
    return set(match.group(1).split()) if match else set()


def problems(source):
    """Yields a sentence for each rule that is broken under `source`, the src/ folder."""
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        name = folder.name
        if name not in LAYER_OF:
            yield f"src/{name}: a folder that no layer lists"
            continue
        declared = declared_dependencies(folder)
        for dependency in sorted(declared):
            if LAYER_OF.get(dependency, 99) >= LAYER_OF[name]:
                yield f"src/{name}: declares {dependency}, which is not of a lower layer"
        for file in sorted(folder.rglob("*")):
            if file.suffix not in {".h", ".cc", ".cu", ".cuh", ".inc"}:
                continue
            for number, line in enumerate(file.read_text().splitlines(), 1):
                match = re.match(r'#include "([a-z_]+)/', line)
                if match and match.group(1) in LAYER_OF and match.group(1) != name and match.group(1) not in declared:
                    yield f"{file.relative_to(source.parent)}:{number}: includes {match.group(1)}, which src/{name} does not declare"


def main():
    found = list(problems(pathlib.Path(__file__).resolve().parent.parent / "src"))
    print("\n".join(found) or "includes follow the layers")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

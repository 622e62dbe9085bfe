"""Write registry.toml from the plugins in this repository: `python tools/write_registry.py [--check]`.

With --check nothing is written, and the exit code is 1 if the file is out of date. Entries under [community] are kept.
"""

import importlib
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [
    str(ROOT / "core"),
    *(str(folder) for folder in sorted((ROOT / "plugins").iterdir()) if folder.is_dir()),
]

HEADER = """\
# What exists, installed or not: lets `preimage` say which distribution offers a name. Written by
# tools/write_registry.py from the plugins in this repository, but for [community]: third parties add their names there.
schema = 1
"""


def render() -> str:
    """The text that registry.toml should have."""
    entries: dict[tuple[str, str], tuple[str, str]] = {}
    projects = [("preimage", "preimage._builtin")]
    for path in sorted((ROOT / "plugins").glob("*/pyproject.toml")):
        project = tomllib.loads(path.read_text("utf-8"))["project"]
        projects += [(project["name"], module) for module in project["entry-points"]["preimage"].values()]
    for distribution, name in projects:
        module = importlib.import_module(name)
        for component in getattr(module, "preimage_components", list)():
            entries[component.kind, component.name] = distribution, component.summary
        for command in getattr(module, "preimage_commands", list)():
            entries["command", command.name] = distribution, command.summary
    text = HEADER
    for (kind, name), (distribution, summary) in sorted(entries.items()):
        key = f'"{name}"' if "/" in name else name
        text += f'\n[{kind}.{key}]\ndistribution = "{distribution}"\nsummary = "{summary}"\n'
    return text + community()


def community() -> str:
    """The part of the present file that is kept."""
    present = (ROOT / "registry.toml").read_text("utf-8")
    start = present.find("\n[community")
    return present[start:] if start >= 0 else ""


def main() -> int:
    """Write or check."""
    path, wanted = ROOT / "registry.toml", render()
    if path.read_text("utf-8") == wanted:
        return 0
    if "--check" in sys.argv:
        print("registry.toml is out of date: run python tools/write_registry.py")
        return 1
    path.write_text(wanted, "utf-8")
    print("wrote registry.toml")
    return 0


if __name__ == "__main__":
    sys.exit(main())

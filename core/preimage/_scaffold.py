"""`preimage new`: a plugin that installs, is listed, and passes its own contract tests before a line is edited."""

import keyword
import re
import string
from importlib.resources import files
from pathlib import Path

import click

from .errors import BadFile, BadParameter

_PAGES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "pipeline.toml": "pipeline.toml",
    "tests/test_{package}.py": "test.py",
    "{package}/__init__.py": "init.py",
    "{package}/plugin.py": "plugin.py",
    "{package}/{module}.py": "{kind}.py",
}


@click.command()
@click.argument("kind", type=click.Choice(["operator", "prior", "solver"]))
@click.argument("name")
@click.option("--directory", type=click.Path(path_type=Path), default=Path(), help="Where to put the new folder.")
def new(kind: str, name: str, directory: Path) -> int:
    """Write a plugin NAME (lower-case words joined by hyphens) that offers one KIND of component.

    The component works as it is; replace its formula by your own.
    """
    folder = write_plugin(kind, name, directory)
    click.echo(f"wrote {folder}: edit {name.replace('-', '_')}.py, then\n")
    click.echo(f"    pip install -e {folder}\n    preimage check {kind}/{name}\n    python -m pytest {folder}")
    return 0


def write_plugin(kind: str, name: str, directory: Path) -> Path:
    """Write the files and give their folder, `directory`/preimage-NAME. Nothing is overwritten.

    Raises `BadParameter` for a name that cannot be a component and a module, `BadFile` if the folder exists or cannot
    be written.
    """
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(module):
        raise BadParameter(
            f"the name is {name!r}", "lower-case words joined by hyphens, such as motion-blur", "choose another"
        )
    folder = directory / f"preimage-{name}"
    words = {"kind": kind, "name": name, "module": module, "package": f"preimage_{module}"}
    words["Class"] = "".join(word.capitalize() for word in name.split("-"))
    parameters = {"operator": "width = 5", "prior": "level = 0.5", "solver": "max_steps = 300"}[kind]
    words["tables"] = "\n".join(
        [
            '[operator]\nname = "identity"' if kind != "operator" else f'[operator]\nname = "{name}"\n{parameters}',
            '[noise]\nname = "gaussian"\nsigma = 0.05',
            '[prior]\nname = "tv"\nweight = 0.02' if kind == "operator" else "",
            f'[prior]\nname = "{name}"\nweight = 0.1\n{parameters}' if kind == "prior" else "",
            f'[solver]\nname = "{name}"\n{parameters}'
            if kind == "solver"
            else '[solver]\nname = "fista"\nmax_steps = 100',
        ]
    ).replace("\n\n", "\n")
    try:
        folder.mkdir(parents=True)
        for target, template in _PAGES.items():
            path = folder / target.format(**words)
            path.parent.mkdir(exist_ok=True)
            text = files("preimage").joinpath("templates", template.format(**words) + ".txt").read_text("utf-8")
            path.write_text(string.Template(text).substitute(words), "utf-8")
    except FileExistsError:
        raise BadFile(f"{folder} exists", "a folder that does not exist yet", "remove it, or use --directory") from None
    except OSError as error:
        raise BadFile(f"{folder} cannot be written: {error.strerror}", "a writable folder", "use --directory") from None
    return folder

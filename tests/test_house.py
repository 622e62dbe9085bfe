"""Rules of the house: the catalogue is true, core stays small and needs only its own dependencies."""

import ast
import importlib.metadata
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from preimage._plugins import discover
from preimage.errors import NotInstalled
from preimage.testing import check_component

ROOT = Path(__file__).parents[1]
CORE = ROOT / "core" / "preimage"
COMPONENTS = sorted(discover().components)


def test_no_installed_plugin_is_broken():
    assert {plugin.distribution: plugin.faults for plugin in discover().plugins if plugin.faults} == {}


@pytest.mark.parametrize(("kind", "name"), COMPONENTS, ids=[f"{kind}/{name}" for kind, name in COMPONENTS])
def test_everything_registered_keeps_the_laws(kind, name):
    """For all plugins at once; their own tests hold to the laws only what is not an example of theirs."""
    try:
        assert check_component(kind, name) > 0
    except NotInstalled as missing:  # an optional package, too heavy for this or not for every machine
        pytest.skip(missing.found)


def test_the_catalogue_equals_the_plugins():
    run = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "write_registry.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def lines_of_code(path: Path) -> int:
    """Lines that hold code: not blank, not a comment, not a docstring."""
    source = path.read_text("utf-8")
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documentation |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    skipped = (tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {line for t in tokens if t.type not in skipped for line in range(t.start[0], t.end[0] + 1)}
    return len(lines - documentation)


def test_core_keeps_its_budget():
    """Interfaces, registry, assembly and the solve loop; the laws and the command line are counted apart."""
    apart = {"testing.py", "_reference.py", "_cli.py", "_inspect.py", "_scaffold.py", "__main__.py"}
    sizes = {path.name: lines_of_code(path) for path in CORE.glob("*.py")}
    assert sum(size for name, size in sizes.items() if name not in apart) <= 2540
    assert sum(size for name, size in sizes.items() if name in apart) <= 745


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def declared(distribution: str) -> set[str]:
    """Names of the distributions that one requires, without extras."""
    lines = importlib.metadata.requires(distribution) or []
    cut = str.maketrans(dict.fromkeys("<>=!~;[(", " "))
    return {line.translate(cut).split()[0].lower() for line in lines if "extra ==" not in line}


def optional(distribution: str) -> set[str]:
    """Names of the distributions that one asks for in extras: imported where they are used, with a word if missing."""
    lines = importlib.metadata.requires(distribution) or []
    cut = str.maketrans(dict.fromkeys("<>=!~;[(", " "))
    return {line.translate(cut).split()[0].lower() for line in lines if "extra ==" in line}


def test_core_imports_what_it_declares():
    third = (
        {name for path in CORE.glob("*.py") for name in imported(path)} - set(sys.stdlib_module_names) - {"preimage"}
    )
    assert third == {name.replace("-", "_") for name in declared("preimage")}


def test_core_names_no_plugin():
    """Plugin knowledge in core would make plugins decoration."""
    folders = {path.parent.name for path in (ROOT / "plugins").glob("*/pyproject.toml")}
    verbs = {
        "analysis",
        "compare",
        "data",
        "networks",
        "train",
        "tune",
    }  # plain words too, so only the names of their distributions count
    names = folders - verbs | {f"preimage{sep}{name}" for name in folders for sep in "-_ "}
    for path in CORE.glob("*.py"):
        text = path.read_text("utf-8")
        assert not {word for word in names | {"camera", "photographs", "total-variation"} if word in text}, path


MODULE_OF = {"pillow": "PIL", "scikit-image": "skimage", "pywavelets": "pywt", "tensorboardx": "tensorboardX"}


@pytest.mark.parametrize("project", sorted((ROOT / "plugins").glob("*/pyproject.toml")), ids=lambda p: p.parent.name)
def test_plugins_import_what_they_declare(project):
    name = f"preimage-{project.parent.name}"
    package = project.parent / name.replace("-", "_")
    third = {module for path in package.rglob("*.py") for module in imported(path)} - set(sys.stdlib_module_names)
    allowed = {MODULE_OF.get(requirement, requirement).replace("-", "_") for requirement in declared(name)}
    allowed |= {package.name, "torch", "numpy", "click"}  # core's own
    allowed |= {MODULE_OF.get(extra, extra).replace("-", "_") for extra in optional(name)}
    assert third <= allowed, third - allowed


def closure(distribution: str) -> set[str]:
    """A distribution and all that it requires, directly or not, here and now."""
    found, waiting = set[str](), [distribution]
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            needed = map(Requirement, importlib.metadata.requires(name) or [])
            waiting += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.mark.slow
def test_core_works_alone_in_a_fresh_environment(tmp_path):
    """Core by pip in a new environment of its dependencies alone: it imports, lists, checks and solves."""
    python = tmp_path / "environment" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "environment"], check=True)
    site = next((tmp_path / "environment").glob("lib/python*/site-packages"))
    for name in closure("preimage") - {"preimage"}:  # linked: to install PyTorch once more takes minutes
        files = importlib.metadata.files(name) or []
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            (site / top).unlink(missing_ok=True)
            (site / top).symlink_to(files[0].locate().parents[len(files[0].parts) - 1] / top)
    pip = [sys.executable, "-m", "pip", "--python", python]
    built = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", site, ROOT]
    subprocess.run([*pip[:3], *built], check=True, capture_output=True)
    found = subprocess.run([*pip, "list", "--format=freeze"], check=True, capture_output=True, text=True)
    installed = {line.partition("==")[0].lower() for line in found.stdout.splitlines()}
    assert not {"scikit-image", "matplotlib", "numba", "pillow", "deepinv", "scipy"} & installed
    code = """
import importlib, pkgutil, torch, preimage
for module in pkgutil.iter_modules(preimage.__path__):
    if module.name != "__main__":
        importlib.import_module(f"preimage.{module.name}")
for name in preimage.__all__:
    getattr(preimage, name)
assert preimage.names("operator") == ["identity"]
"""
    subprocess.run([python, "-c", code], check=True, cwd=tmp_path)
    for arguments in (["list"], ["plugins"], ["check", "--all"], ["show", "identity"]):
        run = subprocess.run(
            [python, "-m", "preimage", *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert run.returncode == 0, run.stderr
    missing = subprocess.run(
        [python, "-m", "preimage", "run", "pipeline.toml"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert missing.returncode == 2
    assert "pip install preimage-data" in missing.stderr

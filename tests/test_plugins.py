"""Discovery: broken plugins are contained and explained; listing imports no torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from preimage._registry import catalogue


def distribution(root: Path, name: str, code: str, entry_points: dict[str, str] | None = None) -> None:
    """A distribution as pip would lay it out: a package, and metadata with entry points in the group `preimage`."""
    module = name.replace("-", "_")
    (root / module).mkdir()
    (root / module / "__init__.py").write_text("")
    (root / module / "plugin.py").write_text(code)
    information = root / f"{module}-1.2.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    entries = entry_points or {name: f"{module}.plugin"}
    text = "[preimage]\n" + "".join(f"{entry} = {target}\n" for entry, target in entries.items())
    (information / "entry_points.txt").write_text(text)


def offering(name: str, kind: str = "operator", target: str = "preimage._operator:Identity") -> str:
    return (
        "from preimage import Component, hookimpl\n@hookimpl\ndef preimage_components():\n"
        f"    return [Component({kind!r}, {name!r}, {target!r}, 'summary of {name}')]\n"
    )


BROKEN = {
    "raises": "raise RuntimeError('no licence found')",
    "needs-more": "import a_module_that_is_missing\n",
    "wrong-signature": "from preimage import hookimpl\n@hookimpl\ndef preimage_components(registry):\n    return []\n",
    "unknown-hook": "from preimage import hookimpl\n@hookimpl\ndef preimage_operators():\n    return []\n",
    "unmarked": "def preimage_components():\n    return []\n",
    "wrong-answer": "from preimage import hookimpl\n@hookimpl\ndef preimage_components():\n    return ['blur']\n",
    "bad-name": offering("Not A Name"),
    "bad-kind": offering("fine", kind="operators"),
    "fails-when-asked": "from preimage import hookimpl\n@hookimpl\ndef preimage_components():\n    return 1 / 0\n",
    "exits": "raise SystemExit('a plugin must not end the program')",
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with two good plugins and many bad ones."""
    distribution(tmp_path, "good-one", offering("good"))
    distribution(tmp_path, "good-two", offering("also-good"))
    for name, code in BROKEN.items():
        distribution(tmp_path, name, code)
    distribution(tmp_path, "first-owner", offering("disputed") + offering("only-first").split("\n", 1)[1].replace(
        "preimage_components", "unused"))  # fmt: skip
    distribution(tmp_path, "second-owner", offering("disputed"))
    distribution(tmp_path, "to-nowhere", "", {"to-nowhere": "to_nowhere.no_such_module"})
    return tmp_path


def preimage(*arguments: str, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **environment}
    if path is not None:
        variables["PYTHONPATH"] = str(path)
    command = [sys.executable, "-m", "preimage", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=120, check=False)


def test_broken_plugins_take_nobody_down(site):
    listed = preimage("list", "operator", path=site)
    assert listed.returncode == 0, listed.stderr
    for name in ("identity", "good", "also-good"):
        assert f"  {name} " in listed.stdout
    assert "cannot be used" in listed.stdout
    assert "broken: " in listed.stderr
    assert "Traceback" not in listed.stdout + listed.stderr


def test_every_fault_is_explained_with_a_remedy(site):
    shown = preimage("plugins", "--json", path=site)
    assert shown.returncode == 1
    faults = {row["distribution"]: row["faults"] for row in json.loads(shown.stdout)}
    assert not faults["good-one"]
    assert not faults["good-two"]
    expected = {
        "raises": ("no licence found", "pip install --upgrade raises"),
        "needs-more": ("a_module_that_is_missing", "pip install a_module_that_is_missing"),
        "wrong-signature": ("wrong hook signature", "mend the hook"),
        "unknown-hook": ("no plugin hook 'preimage_operators'", "mend the hook"),
        "unmarked": ("not marked with @hookimpl", "mend the hook"),
        "wrong-answer": ("not a list of Component", "mend the hook"),
        "bad-name": ("Not A Name", "pip install --upgrade bad-name"),
        "bad-kind": ("'operators'", "pip install --upgrade bad-kind"),
        "fails-when-asked": ("division by zero", "pip install --upgrade"),
        "exits": ("must not end the program", "pip install --upgrade exits"),
        "first-owner": ("also offered by second-owner 1.2", "pip uninstall one"),
        "second-owner": ("also offered by first-owner 1.2", "pip uninstall one"),
        "to-nowhere": ("no_such_module", "pip install --force-reinstall to-nowhere"),
    }
    for name, (problem, remedy) in expected.items():
        (fault,) = faults[name]
        assert problem in fault["problem"], (name, fault)
        assert remedy in fault["remedy"], (name, fault)
    text = preimage("plugins", "--traceback", path=site).stdout
    assert "no licence found" in text
    assert "raise RuntimeError" in text


def test_a_disputed_name_is_an_error_that_names_both(site):
    shown = preimage("show", "operator/disputed", path=site)
    assert shown.returncode == 2
    assert "first-owner 1.2 and second-owner 1.2" in shown.stderr
    chosen = preimage("show", "operator/disputed", path=site, PREIMAGE_PLUGINS="second-owner")
    assert chosen.returncode == 0
    assert "second-owner 1.2" in chosen.stdout


def test_a_name_of_a_broken_distribution_says_what_broke(site):
    names = "from preimage._registry import absent, catalogue\nimport preimage._registry as r\n"
    code = names + (
        "r.catalogue = lambda: {('operator', 'lost'): {'distribution': 'raises', 'summary': ''}}\n"
        "print(type(absent('operator', 'lost', [])).__name__, absent('operator', 'lost', []))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                         env={**os.environ, "PYTHONPATH": str(site)})  # fmt: skip
    assert run.stdout.startswith("BrokenPlugin")
    assert "no licence found" in run.stdout


def test_a_target_that_does_not_import_is_reported_when_it_is_used(tmp_path):
    distribution(tmp_path, "late", offering("late", target="late.missing:Late"))
    assert preimage("list", path=tmp_path).returncode == 0
    shown = preimage("show", "late", path=tmp_path)
    assert shown.returncode == 2
    assert "late 1.2 could not be imported from late.missing:Late" in shown.stderr


def test_a_target_of_another_kind_is_reported(tmp_path):
    distribution(tmp_path, "confused", offering("confused", target="preimage._noise:GaussianNoise"))
    shown = preimage("show", "operator/confused", path=tmp_path)
    assert shown.returncode == 2
    assert "a subclass of ForwardOperator" in shown.stderr


def test_plugins_can_be_chosen(site):
    listed = preimage("list", "operator", path=site, PREIMAGE_PLUGINS="good-one")
    assert "good" in listed.stdout
    assert "also-good" not in listed.stdout
    assert "broken" not in listed.stderr
    assert " identity" in preimage("list", path=site, PREIMAGE_PLUGINS="").stdout


@pytest.mark.parametrize("arguments", [["list"], ["plugins"], ["--help"], ["list", "--json"]])
def test_listing_imports_no_torch(arguments):
    code = (
        "import sys\nfrom preimage._cli import run\n"
        f"assert run({arguments!r}) == 0\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'scipy', 'matplotlib', 'skimage', 'numba', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_a_name_that_is_not_installed_comes_with_its_pip_line():
    shown = preimage("show", "gaussian-blur", PREIMAGE_PLUGINS="")
    assert shown.returncode == 2
    assert "did you mean" in shown.stderr or "pip install preimage-gaussian-blur" in shown.stderr
    listed = preimage("list", PREIMAGE_PLUGINS="")
    assert "pip install preimage-gaussian-blur" in listed.stdout
    code = "from preimage import load\nload('operator', 'gaussian-blur')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                         env={**os.environ, "PREIMAGE_PLUGINS": ""})  # fmt: skip
    assert "pip install preimage-gaussian-blur" in run.stderr


def test_the_catalogue_of_this_repository_can_be_read():
    assert ("operator", "deepinv/blur") in catalogue()
    assert {entry["distribution"] for entry in catalogue().values()} >= {"preimage-train", "preimage-deepinv"}

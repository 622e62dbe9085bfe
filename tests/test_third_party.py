"""A third party adds an operator, a prior or a solver without touching this repository."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def command(*arguments: str, cwd: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"PYTHONPATH": str(site)} if site else {})
    return subprocess.run(arguments, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300, check=False)


@pytest.mark.parametrize(
    ("kind", "name"), [("operator", "shear"), ("prior", "near-grey"), ("solver", "gentle-descent")]
)
def test_a_new_plugin_works_unedited(tmp_path, kind, name):
    python = (sys.executable, "-m", "preimage")
    written = command(*python, "new", kind, name, cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    package, site = tmp_path / f"preimage-{name}", tmp_path / "site"
    # Built and installed by pip as any user would, into a folder of its own so that this environment stays as it is.
    pip = (
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(site),
    )
    installed = command(*pip, str(package), cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    listed = command(*python, "list", kind, cwd=tmp_path, site=site)
    assert f"  {name} " in listed.stdout
    checked = command(*python, "check", f"{kind}/{name}", cwd=tmp_path, site=site)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = command(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=package, site=site)
    assert tested.returncode == 0, tested.stdout
    assert "1 passed" in tested.stdout
    run = command(*python, "run", "pipeline.toml", "--out", str(tmp_path / "out"), cwd=package, site=site)
    assert run.returncode == 0, run.stdout + run.stderr
    assert len(list((tmp_path / "out").glob("*/estimate.png"))) == 2


@pytest.mark.parametrize("name", ["Shear", "shear_one", "2d", "class", "a b", ""])
def test_names_that_cannot_be_modules_are_refused(tmp_path, name):
    written = command(sys.executable, "-m", "preimage", "new", "operator", name, cwd=tmp_path)
    assert written.returncode == 2
    assert "lower-case words joined by hyphens" in written.stderr
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "preimage-shear").mkdir()
    (tmp_path / "preimage-shear" / "mine.txt").write_text("precious")
    written = command(sys.executable, "-m", "preimage", "new", "operator", "shear", cwd=tmp_path)
    assert written.returncode == 2
    assert "exists" in written.stderr
    assert [path.name for path in (tmp_path / "preimage-shear").iterdir()] == ["mine.txt"]

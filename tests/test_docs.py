"""The documentation is executed: TOML and Python blocks that name a file are written, the others run, in order."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    "README.md", "docs/getting-started.md", "docs/write-a-plugin.md", "docs/train-your-own.md",
    "plugins/train/README.md",
]  # fmt: skip


def run(arguments: list[str] | str, folder: Path, *, shell: bool = False) -> None:
    environment = os.environ | {"PYTHONPATH": str(folder / "site"), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    environment.pop("PREIMAGE_DATA", None)  # paths of folders are then relative to the current one
    outcome = subprocess.run(
        arguments, cwd=folder, env=environment, shell=shell, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, f"{arguments}\n{outcome.stdout}\n{outcome.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_page_does_what_it_says(page, tmp_path):
    # `pip install` goes to a folder of its own, so that the tests leave the environment as it was.
    (tmp_path / "bin").mkdir()
    commands = {
        "python": sys.executable,
        "preimage": f"{sys.executable} -m preimage",
        "pytest": f"{sys.executable} -m pytest -q -p no:cacheprovider",
    }
    for name, target in commands.items():
        script = tmp_path / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {target} "$@"\n')
        script.chmod(0o755)
    Image.fromarray((np.random.default_rng(0).random((96, 96)) * 255).astype(np.uint8)).save(tmp_path / "photo.png")
    script, ran = "", 0
    for language, body in BLOCK.findall((ROOT / page).read_text("utf-8")):
        named = re.match(r"# (\S+\.(?:toml|py))\n", body)
        if named:
            path = tmp_path / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body)
            if named[1].startswith("preimage-"):
                install(tmp_path, path.relative_to(tmp_path).parts[0])
        elif language == "python" and "@hookimpl" not in body:
            script += body
        elif language == "console":
            for line in (line.removeprefix("$ ") for line in body.splitlines()):
                ran += 1
                if line.startswith("pip install -e ./"):
                    install(tmp_path, shlex.split(line)[-1])
                else:
                    run(line, tmp_path, shell=True)
    if script:
        run([sys.executable, "-W", "error", "-c", script], tmp_path)
    assert ran >= 3


def install(folder: Path, package: str) -> None:
    shutil.rmtree(folder / "site", ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    run([*pip, str(folder / "site"), str(folder / package)], folder)

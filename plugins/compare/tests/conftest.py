"""A tiny plugin with methods that misbehave, found through an entry point as any other, and the command line."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

METHODS = '''
import os, signal, time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
import torch
from preimage import DirectSolver, Prior, Solver
from preimage.weights import WeightsName, load_weights


@dataclass(frozen=True, kw_only=True)
class Crawl(Solver):
    """Landweber with a step so small that it never meets its tolerance."""
    max_steps: int = 10**9
    def init(self, problem, keys): return problem.start()
    def step(self, problem, state): return state - 1e-9 * problem.misfit_and_grad(state)[1]
    def estimate(self, problem, state): return state


@dataclass(frozen=True, kw_only=True)
class Raise(DirectSolver):
    def invert(self, problem, keys): raise RuntimeError("a defect of this method")


@dataclass(frozen=True, kw_only=True)
class Hoard(DirectSolver):
    def invert(self, problem, keys):
        hoard = []
        for _ in range(400):
            hoard.append(torch.ones(2_500_000))  # 10 MB
        return problem.start()


@dataclass(frozen=True, kw_only=True)
class Forever(DirectSolver):
    def invert(self, problem, keys):
        while True:
            time.sleep(0.01)


@dataclass(frozen=True, kw_only=True)
class NaN(Solver):
    def init(self, problem, keys): return problem.start()
    def step(self, problem, state): return state * float("nan")
    def estimate(self, problem, state): return state


@dataclass(frozen=True, kw_only=True)
class Die(DirectSolver):
    def invert(self, problem, keys): os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, kw_only=True)
class Work(Solver):
    """Steps that take some time, and a diary of what was begun."""
    seconds: float = 0.01
    diary: str = ""
    max_steps: int = 5
    def init(self, problem, keys):
        if self.diary and self.max_steps > 2:  # not the warm-up
            with open(self.diary, "a") as file:
                file.write(f"{os.getpid()}\\n")
        return problem.start()
    def step(self, problem, state):
        end = time.process_time() + self.seconds
        while time.process_time() < end:
            torch.ones(10_000).sin()
        return state - 0.5 * problem.misfit_and_grad(state)[1]
    def estimate(self, problem, state): return state


class Scaled(Prior):
    def __init__(self, in_shape, *, weights: WeightsName):
        super().__init__(in_shape)
        self.register_buffer("scale", load_weights(weights, "prior/scaled").tensors["scale"])


@dataclass(frozen=True, kw_only=True)
class Apply(DirectSolver):
    prior_type: ClassVar = Scaled
    def invert(self, problem, keys): return problem.start() * problem.prior.scale
'''

PLUGIN = """
from preimage import Component, hookimpl

@hookimpl
def preimage_components():
    names = ("Crawl", "Raise", "Hoard", "Forever", "NaN", "Die", "Work", "Apply")
    solvers = [Component("solver", f"faulty-{name.lower()}", f"faulty_methods:{name}", name) for name in names]
    return [*solvers, Component("prior", "scaled", "faulty_methods:Scaled", "a number")]
"""


class Site:
    """A folder on the path of Python with one small distribution, whose version can be changed."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        (folder / "faulty_methods.py").write_text(METHODS)
        (folder / "faulty_plugin.py").write_text(PLUGIN)
        self.version("1.0")

    def version(self, version: str) -> None:
        for old in self.folder.glob("*.dist-info"):
            for file in old.iterdir():
                file.unlink()
            old.rmdir()
        information = self.folder / f"faulty-{version}.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: faulty\nVersion: {version}\n")
        (information / "entry_points.txt").write_text("[preimage]\nfaulty = faulty_plugin\n")

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, (str(self.folder), os.environ.get("PYTHONPATH"))))
        return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def heed_permissions() -> None:
    """Give up root's right to write where permissions forbid it, for this process and those that it starts."""
    drop_from_bounding_set, dac_override = 24, 1  # prctl(2), capabilities(7)
    if ctypes.CDLL(None, use_errno=True).prctl(drop_from_bounding_set, dac_override, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the capability cannot be given up")


Compare = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def compare(tmp_path: Path, site: Site) -> Compare:
    """`preimage compare ...` in a process of its own, the faulty plugin installed.

    `bound`: by the permissions of files, as any user but root is anyway.
    """

    def call(*arguments: Any, timeout: float = 300, bound: bool = False) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "preimage", "compare", *map(str, arguments)]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=site.environment(),
            timeout=timeout,
            check=False,
            preexec_fn=heed_permissions if bound and os.geteuid() == 0 else None,
        )

    return call


def suite_text(methods: str, *, size: int = 16, count: int = 2, seeds: str = "[0]", top: str = "") -> str:
    return f"""
title = "Test"
seeds = {seeds}
{top}
[[data]]
label = "photographs"
name = "photographs"
size = {size}
count = {count}
[[operator]]
label = "identity"
name = "identity"
[[noise]]
label = "0.05"
name = "gaussian"
sigma = 0.05
{methods}
"""


@pytest.fixture
def write_suite(tmp_path: Path) -> Callable[..., Path]:
    """Write a suite of these [[method]] tables, and give its path."""

    def write(methods: str, name: str = "suite.toml", **settings: Any) -> Path:
        path = tmp_path / name
        path.write_text(suite_text(methods, **settings))
        return path

    return write


def numbers(folder: Path) -> dict[tuple[Any, ...], Any]:
    """The final table of a folder: all that a cell says but times, memory and the machine."""
    from preimage_compare import read
    from preimage_compare.store import AXES

    results = read(folder)
    assert not results.corrupt
    assert not results.missing
    table: dict[tuple[Any, ...], Any] = {}
    for cell in results.cells:
        kept = ("key", "outcome", "status", "reason", "metrics", "start_metrics", "steps", "evaluations", "measurement")
        table[tuple(cell[axis] for axis in AXES)] = json.dumps({name: cell[name] for name in kept}, sort_keys=True)
    return table


@pytest.fixture(name="numbers")
def numbers_fixture() -> Callable[[Path], dict[tuple[Any, ...], Any]]:
    return numbers


def temporary(folder: Path) -> list[Path]:
    """Whatever is in a result folder and is not a result."""
    named = ("suite.json", "plan.json", "lock")
    inside = ("cells", "images", "measurements")
    return [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and (path.name.startswith(".") or (path.name not in named and path.relative_to(folder).parts[0] not in inside))
    ]


@pytest.fixture(name="temporary")
def temporary_fixture() -> Callable[[Path], list[Path]]:
    return temporary

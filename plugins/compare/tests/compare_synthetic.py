"""Result folders with known answers, of any size, in the format that `preimage compare` writes."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from preimage_compare import store
from safetensors.numpy import save

METHODS = ("tv-admm", "tikhonov-cg", "wavelet-fista", "unet", "pnp-drunet", "back-projection")
EFFECTS = {
    "tv-admm": 0.0,
    "tikhonov-cg": -1.5,
    "wavelet-fista": -0.4,
    "unet": 1.1,
    "pnp-drunet": 1.6,
    "back-projection": -5,
}
SECONDS = {
    "tv-admm": 0.8,
    "tikhonov-cg": 0.05,
    "wavelet-fista": 0.6,
    "unet": 0.02,
    "pnp-drunet": 3.0,
    "back-projection": 1e-3,
}
FAILURES = (
    ("Diverged", "produced NaN or infinity after 12 steps", "use a smaller step_size"),
    ("TimeLimit", "took more than 60 s", "raise limits.seconds"),
    ("MemoryError", "needed more than 4000 MB", "raise limits.memory_mb"),
)
LEVELS = {"0.01": 0.01, "0.025": 0.025, "0.1": 0.1}


@dataclass
class Synthetic:
    """What is in the folder: `images` of `size` pixels, and cells whose metrics are drawn around `EFFECTS`.

    - `failing`: methods of which every seventh cell failed. `skipped`: (method, operator) that do not fit.
    - `lost`: (number of the method, number of the unit, from 1) of cells that are planned but not written.
    - `stored`: units for which images and traces are written, counted from the first.
    """

    methods: Sequence[str] = METHODS
    operators: Sequence[str] = ("blur", "inpainting")
    noises: Sequence[str] = ("0.01", "0.1")
    images: int = 6
    seeds: int = 2
    size: int = 48
    channels: int = 1
    failing: Sequence[str] = ("wavelet-fista",)
    skipped: Sequence[tuple[str, str]] = (("unet", "inpainting"),)
    stored: int = 24
    lost: Sequence[tuple[int, int]] = ()
    seed: int = 0
    shift: float = 0.0
    traceback: str = 'Traceback (most recent call last):\n  File "solver.py", line 1, in step\nValueError: broken'
    effects: dict[str, float] = field(default_factory=lambda: dict(EFFECTS))

    def write(self, folder: Path) -> list[dict[str, Any]]:
        """Write the folder; gives the cells."""
        # Nothing here need survive a power cut, and flushing 50,000 files would take minutes.
        with mock.patch.object(os, "fsync"):
            return self._write(folder)

    def _write(self, folder: Path) -> list[dict[str, Any]]:
        random = np.random.default_rng(self.seed)
        labels = {
            "data": ["synthetic"],
            "operator": list(self.operators),
            "noise": list(self.noises),
            "method": list(self.methods),
            "seed": list(range(self.seeds)),
        }
        suite = self.suite()
        cells: list[dict[str, Any]] = []
        made = 0
        for operator in self.operators:
            for noise in self.noises:
                level = LEVELS.get(noise, 0.05)
                for image in range(self.images):
                    base = 34 - 20 * np.log10(1 + 30 * level) + 2 * np.sin(image)
                    for seed in range(self.seeds):
                        keep = made < self.stored
                        made += 1
                        truth = self.picture(image) if keep else None
                        digest = _hash("measurement", operator, noise, image, seed)
                        measurement = None
                        if truth is not None:
                            noisy = truth + level * random.standard_normal(truth.shape)
                            measurement = _tensors(truth=truth, measurement=noisy, start=np.clip(noisy, 0, 1))
                        for number, method in enumerate(self.methods):
                            cell = self.cell(operator, noise, image, seed, method, base, digest, len(cells), random)
                            estimate = None
                            if truth is not None and cell["outcome"] == "ok":
                                error = 10 ** (-cell["metrics"]["psnr"] / 20)
                                found = truth + error * np.roll(random.standard_normal(truth.shape), number)
                                estimate = _tensors(estimate=found, **self.trace(cell))
                            if (number, made) not in self.lost:
                                store.write_cell(folder, cell, estimate, measurement)
                            cells.append(cell)
        head = {"title": suite["title"], "description": suite["description"], "reference": suite["reference"]}
        versions = {"preimage": "0.1.0", "torch": "2.15.0", "python": "3.11.7"}
        whole = {**head, "labels": labels, "suite": suite, "versions": versions}
        store.write_plan(folder, whole, [(cell["key"], tuple(cell[axis] for axis in store.AXES)) for cell in cells])
        return cells

    def suite(self) -> dict[str, Any]:
        """The resolved suite."""
        return {
            "title": "Synthetic results",
            "description": "Numbers drawn around known differences.",
            "seeds": list(range(self.seeds)),
            "reference": self.methods[0],
            "data": [{"label": "synthetic", "name": "photographs", "count": self.images, "size": self.size}],
            "operator": [{"label": label, "name": "gaussian-blur"} for label in self.operators],
            "noise": [{"label": label, "name": "gaussian", "sigma": LEVELS.get(label, 0.05)} for label in self.noises],
            "method": [{"label": label, "solver": {"name": "admm"}} for label in self.methods],
        }

    def picture(self, number: int) -> np.ndarray:
        """A smooth picture with edges, (C, H, W) in [0, 1]."""
        y, x = np.mgrid[0 : self.size, 0 : self.size] / self.size
        wave = 0.5 + 0.25 * np.sin(7 * x + number) * np.cos(5 * y - number)
        disc = ((x - 0.3 - 0.05 * (number % 5)) ** 2 + (y - 0.6) ** 2 < 0.04) * 0.3
        bars = ((x > 0.62) & (np.floor(14 * y) % 2 == 0)) * 0.25
        grey = np.clip(wave + disc - bars, 0, 1)
        tints = np.array([1.0] if self.channels == 1 else [1.0, 0.92, 0.8])
        return tints[:, None, None] * grey

    def cell(self, operator, noise, image, seed, method, base, digest, number, random) -> dict[str, Any]:
        """One cell, ok, failed or skipped."""
        effect = self.effects.get(method, 0.1 * (number % len(self.methods)) - 1)
        psnr = float(base + effect + self.shift * (method == "unet") + 0.3 * random.standard_normal())
        seconds = float(
            SECONDS.get(method, 10 ** (-2 + 0.13 * (number % len(self.methods))))
            * np.exp(0.2 * random.standard_normal())
        )
        steps = int(random.integers(10, 120))
        outcome, status, error = "ok", "converged", None
        reason = f"Solver stopped after {steps} steps: the tolerance was reached"
        if (method, operator) in self.skipped:
            outcome, status, reason = "skipped", None, f"operator {operator} does not fit: a LinearOperator is needed"
        elif method in self.failing and (image + seed) % 7 == 0:
            kind, message, remedy = FAILURES[(image + seed) // 7 % len(FAILURES)]
            outcome, status, reason = "failed", "diverged" if kind == "Diverged" else None, f"{message}; {remedy}"
            error = {"type": kind, "message": message, "traceback": self.traceback}
        ok = outcome == "ok"
        return {
            "schema": 1,
            "key": _hash("cell", operator, noise, image, seed, method),
            "data": "synthetic",
            "image": f"image-{image:04d}",
            "operator": operator,
            "noise": noise,
            "seed": seed,
            "method": method,
            "outcome": outcome,
            "status": status,
            "reason": reason,
            "metrics": {
                "psnr": psnr,
                "ssim": 1 / (1 + np.exp(-(psnr - 22) / 4)),
                "nmse": 10 ** (-psnr / 10) * 4,
                "misfit": 1000 + 10 * random.standard_normal(),
            }
            if ok
            else {},
            "start_metrics": {"psnr": base - 6, "ssim": 0.4},
            "steps": steps if ok else None,
            "evaluations": {"forward": steps, "adjoint": steps, "jvp": 0, "vjp": 0, "linearize": 0, "solve_normal": 0}
            | {"prox": steps, "denoise": 0, "decode": 0, "encode": 0, "energy": 0, "grad": 0},
            "seconds": seconds if ok else None,
            "peak_memory": {"cpu": int(2e8 + 1e6 * number % 7e7), "gpu": None},
            "certificate": None,
            "measurement": digest,
            "config": {
                "data": {"name": "photographs"},
                "operator": [{"name": operator}],
                "noise": {"name": "gaussian", "sigma": LEVELS.get(noise, 0.05)},
                "prior": {"name": "tv", "weight": 0.01},
                "solver": {"name": "admm", "max_steps": 1000},
                "seed": 0,
                "device": "cpu",
            },
            "versions": {"preimage": "0.1.0", "torch": "2.15.0", "preimage-baselines": "0.1.0"},
            "weights": {},
            "preset": {"name": "tv", "tuned": {"budget": 40, "split": "validation"}} if method == "tv-admm" else None,
            "error": error,
            "machine": {"cpu": "Processor X", "device": "cpu", "threads": 1},
        }

    def trace(self, cell: dict[str, Any]) -> dict[str, np.ndarray]:
        """A convergence curve that ends at the cell's numbers."""
        seconds = np.linspace(0, cell["seconds"], 40)
        rise = 1 - np.exp(-np.linspace(0, 6, 40))
        psnr = cell["start_metrics"]["psnr"] + (cell["metrics"]["psnr"] - cell["start_metrics"]["psnr"]) * rise
        return {"trace_seconds": seconds, "trace_objective": 100 - 90 * rise, "trace_psnr": psnr}


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _tensors(**tensors: np.ndarray) -> bytes:
    return save({name: np.ascontiguousarray(value, dtype=np.float32) for name, value in tensors.items()})

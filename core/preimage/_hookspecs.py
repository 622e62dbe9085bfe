"""All hooks. A plugin implements the ones it needs, and names only the arguments it uses."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from ._plugins import Command, Component, WeightsFile
    from ._solver import Reconstruction, Run

hookspec = pluggy.HookspecMarker("preimage")
hookimpl = pluggy.HookimplMarker("preimage")


class PluginHooks:
    """Answered once per process, at discovery. Implementations are data: they must not import torch."""

    @hookspec
    def preimage_components(self) -> "list[Component]":  # type: ignore[empty-body]
        """The components this plugin offers; classes are named, not imported."""

    @hookspec
    def preimage_commands(self) -> "list[Command]":  # type: ignore[empty-body]
        """Subcommands of the `preimage` command line; functions are named, not imported."""

    @hookspec
    def preimage_weights(self) -> "list[WeightsFile]":  # type: ignore[empty-body]
        """The weights files this plugin ships, by component and name (see `preimage.weights`)."""

    @hookspec
    def preimage_presets(self) -> "list[str]":  # type: ignore[empty-body]
        """The preset files this plugin ships, as "package:folder/file.toml" (see `preimage.presets`)."""


class RunHooks:
    """Called by `solve` around every step. Implementations must not change the state."""

    @hookspec
    def preimage_start(self, run: "Run") -> None:
        """Before the first step; `run.step == 0`."""

    @hookspec
    def preimage_step(self, run: "Run") -> bool | None:
        """After every step. Return True to ask the run to stop (status STOPPED)."""

    @hookspec
    def preimage_finish(self, run: "Run", reconstruction: "Reconstruction") -> None:
        """After the last step, also when an image diverged."""


def run_hooks(observers: Iterable[object]) -> pluggy.HookRelay:
    """A fresh relay for one run, so that nested runs do not hear each other."""
    manager = pluggy.PluginManager("preimage")
    manager.add_hookspecs(RunHooks)
    for observer in observers:
        manager.register(observer, name=f"{type(observer).__name__}-{id(observer)}")
    manager.check_pending()
    return manager.hook


NOBODY = run_hooks(())
"""For runs that nobody observes: making a relay takes as long as a step on a small image."""

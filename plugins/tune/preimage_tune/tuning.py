"""Tuning a suite: one study for each method, operator and noise, all with the same budget."""

from collections.abc import Sequence
from pathlib import Path

from preimage_compare.suite import Suite, load_suite

from preimage.errors import BadParameter

from .cases import cases
from .files import locked
from .outcomes import Settings, Told, Tuned
from .presets import merge_presets, preset_path, write_presets
from .study import Store
from .workers import run

STUDIES = "studies.db"
PRESETS = "presets"


def tune(
    suite: Suite | str | Path,
    out: str | Path,
    settings: Settings = Settings(),
    *,
    only: Sequence[str] = (),
    jobs: int = 1,
    overwrite: bool = False,
    merge: Path | None = None,
    told: Told | None = None,
) -> list[Tuned]:
    """Search every method of a suite on every operator and noise, and write the presets to `out/presets`.

    - `out`: studies are kept in `out/studies.db`, trial by trial: killed and called again, the search goes on, and ends
      with the presets of an uninterrupted one, byte for byte.
    - `only`: labels of methods. `jobs`: processes; the outcome does not depend on it.
    - `overwrite`: drop studies in `out` of other data, methods, searches or versions; else they are an error.
    - `merge`: a folder of preset files to bring up to date as well.
    - `told`: hears when a search begins or is taken up, and of every trial.

    Raises what is wrong with the suite, its searches or its data, before the first trial.
    """
    suite = suite if isinstance(suite, Suite) else load_suite(suite)
    if jobs < 1:
        raise BadParameter(f"jobs is {jobs}", "at least 1 process")
    chosen = cases(suite, only)
    out = Path(out)
    with locked(out / STUDIES):
        Store(out / STUDIES).close()
        tuned = run(suite, chosen, out / STUDIES, settings, jobs=jobs, overwrite=overwrite, told=told)
        for method in dict.fromkeys(one.case.label.method for one in tuned):
            entries = [entry for one in tuned if one.case.label.method == method if (entry := one.entry(settings))]
            if entries:
                write_presets(preset_path(out / PRESETS, method), entries)
                if merge is not None:
                    merge_presets(preset_path(merge, method), entries)
    return tuned

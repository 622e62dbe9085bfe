"""The command line: help, exit codes, and JSON for scripts."""

import json

import pytest

from preimage import Component, Identity
from preimage._cli import run
from preimage._plugins import discover
from preimage._registry import find


class TooShort(Identity):
    """Breaks a law."""

    def norm_bound(self) -> float:
        return 0.5


def test_no_arguments_is_help(capsys):
    assert run([]) == 0
    text = capsys.readouterr().out
    for name in ("list", "show", "plugins", "check", "new", "run", "demo"):
        assert f"  {name} " in text


@pytest.mark.parametrize("command", ["list", "show", "plugins", "check", "new", "run", "demo"])
def test_every_command_has_help(command, capsys):
    assert run([command, "--help"]) == 0
    assert "Usage: preimage" in capsys.readouterr().out


def test_version(capsys):
    assert run(["--version"]) == 0
    assert "preimage, version" in capsys.readouterr().out


def test_list_for_scripts(capsys):
    assert run(["list", "operator", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"identity", "gaussian-blur", "perona-malik"} <= {row["name"] for row in rows}
    assert all(row["kind"] == "operator" and row["installed"] for row in rows)


def test_show_for_scripts(capsys):
    assert run(["show", "fista", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["kind"] == "solver"
    assert {"name": "step_size", "type": "'auto' or float", "default": "'auto'"} in about["parameters"]
    assert {"perona-malik", "inpainting"} <= set(about["fits"]["operator"])
    assert "tv" in about["fits"]["prior"]


def test_show_says_what_an_operator_fits_with(capsys):
    assert run(["show", "perona-malik"]) == 0
    text = capsys.readouterr().out
    fitting = text.partition("solvers that fit")[2].replace(",", " ").split()
    assert "fista" in fitting
    assert "admm" not in fitting  # deepinv/admm does
    assert "contrast" in text


def test_check_passes_and_fails(capsys, monkeypatch, tmp_path):
    (tmp_path / "good.toml").write_text(
        'shape = [1, 8, 8]\n[operator]\nname = "identity"\n[noise]\nname = "none"\n[solver]\nname = "adjoint"\n'
    )
    assert run(["check", "identity", "noise/gaussian", str(tmp_path / "good.toml")]) == 0
    assert capsys.readouterr().out.count("ok") == 3

    _, owner = find("operator", "identity")
    broken = Component("operator", "too-short", f"{__name__}:TooShort", "claims a norm that is too small")
    monkeypatch.setitem(discover().components, ("operator", "too-short"), [(broken, owner)])  # type: ignore[arg-type]
    assert run(["check", "operator/too-short", "identity"]) == 1
    text = capsys.readouterr().out
    assert "broken" in text
    assert "norm_bound" in text
    assert "operator/identity keeps the laws" in text

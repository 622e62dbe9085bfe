"""Presets: chosen by operator and noise, overridden by what stands in the pipeline, and clear when there is none."""

import pytest

from preimage import Pipeline
from preimage.errors import BadFile, BadParameter, SeveralProblems
from preimage.presets import choose, read_presets

FILE = """
[[preset]]
name = "smooth"
operator = { name = "gaussian-blur" }
noise = { name = "gaussian", sigma = 0.025 }
prior = { name = "tikhonov", weight = 0.03 }
solver = { name = "conjugate-gradients", max_steps = 40 }
tuned = { data = "two photographs", score = 25.5 }

[[preset]]
name = "smooth"
operator = { name = "gaussian-blur", boundary = "circular" }
noise = { name = "gaussian", sigma = 0.05 }
prior = { name = "tikhonov", weight = 0.3 }
solver = { name = "conjugate-gradients" }
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FILE, "utf-8")
    return path


def tables(file, **changes):
    return {
        "preset": str(file),
        "shape": [1, 16, 16],
        "operator": {"name": "gaussian-blur"},
        "noise": {"name": "gaussian", "sigma": 0.025},
    } | changes


def test_a_preset_fills_in_prior_and_solver(file):
    pipeline = Pipeline.from_dict(tables(file))
    assert pipeline.weight == 0.03
    assert pipeline.solver.max_steps == 40
    assert pipeline.config["preset"] == str(file)
    assert pipeline.config["prior"]["weight"] == 0.03
    assert Pipeline.from_dict(dict(pipeline.config)).config == pipeline.config


def test_what_stands_in_the_pipeline_wins(file):
    pipeline = Pipeline.from_dict(tables(file, prior={"weight": 0.5}, solver={"max_steps": 7}))
    assert pipeline.weight == 0.5
    assert pipeline.solver.max_steps == 7
    other = Pipeline.from_dict(tables(file, prior={"name": "tv"}, solver={"name": "admm"}))
    assert other.weight == 1.0
    assert other.config["prior"]["name"] == "tv"


def test_the_entry_is_chosen_by_operator_and_noise(file):
    circular = tables(file, noise={"name": "gaussian", "sigma": 0.05})
    circular["operator"] = {"name": "gaussian-blur", "boundary": "circular"}
    assert Pipeline.from_dict(circular).weight == 0.3
    named = choose(f"{file}:smooth", [{"name": "gaussian-blur"}], {"name": "gaussian", "sigma": 0.025}, "test")
    assert named.tuned["score"] == 25.5


def test_the_entry_is_chosen_by_channels(tmp_path):
    entry = FILE.split("[[preset]]")[1]
    entries = {None: 0.01, 1: 0.1, 3: 0.3}

    def written(*channels):
        path = tmp_path / f"{channels}.toml"
        lines = ["" if n is None else f"channels = {n}\n" for n in channels]
        weighed = [entry.replace("weight = 0.03", f"weight = {entries[n]}") for n in channels]
        path.write_text("".join(f"[[preset]]{text}{line}" for text, line in zip(weighed, lines, strict=True)), "utf-8")
        return path

    def weight(path, channels, **given):
        return Pipeline.from_dict(tables(path, shape=[channels, 16, 16]) | given).weight

    everything = written(1, None, 3)
    assert [weight(everything, n) for n in (1, 2, 3)] == [0.1, 0.01, 0.3]
    assert [weight(written(3, 1), n) for n in (1, 2, 3)] == [0.1, 0.1, 0.3]  # grey values hold channel by channel
    with pytest.raises(BadParameter, match=r"1 channel(.|\n)*sigma 0.025\), 3 channels"):
        weight(written(3), 1)
    data = {"data": {"name": "folder", "path": str(tmp_path / "absent")}}
    without = {key: value for key, value in tables(everything).items() if key != "shape"}
    with pytest.raises(BadFile):  # the images are missing, not a preset
        Pipeline.from_dict(without | data)


def test_the_channels_of_a_data_set_count(tmp_path):
    colour = tmp_path / "colour.toml"
    entry = FILE.split("[[preset]]")[1]
    colour.write_text(f"[[preset]]{entry}[[preset]]{entry.replace('0.03', '0.3')}channels = 3\n", "utf-8")
    without = {key: value for key, value in tables(colour).items() if key != "shape"}
    data = {"name": "photographs", "size": 16, "count": 1}
    pipeline = Pipeline.from_dict(without | {"data": data | {"colour": "colour"}})
    assert pipeline.weight == 0.3
    assert Pipeline.from_dict(dict(pipeline.config)).config == pipeline.config
    assert Pipeline.from_dict(without | {"data": data}).weight == 0.03


def test_no_entry_for_this_noise_says_which_there_are(file):
    with pytest.raises(
        BadParameter, match=r"no values for gaussian-blur, noise gaussian \(sigma 0.1\)(.|\n)*sigma 0.025"
    ):
        Pipeline.from_dict(tables(file, noise={"name": "gaussian", "sigma": 0.1}))


def test_unknown_presets_and_files(file, tmp_path):
    with pytest.raises(BadParameter, match="there is no preset 'nothing-like-it'"):
        Pipeline.from_dict(tables("nothing-like-it"))
    with pytest.raises(BadParameter, match=r"did you mean 'smooth'"):
        Pipeline.from_dict(tables(f"{file}:smoth"))
    with pytest.raises(BadFile, match="there is no file"):
        Pipeline.from_dict(tables(tmp_path / "absent.toml") | {"preset": str(tmp_path / "absent.toml")})
    with pytest.raises(BadParameter, match="preset is 3"):
        Pipeline.from_dict(tables(file) | {"preset": 3})


def test_what_a_preset_depends_on_is_checked_first(file):
    with pytest.raises(SeveralProblems) as caught:
        Pipeline.from_dict(tables(file, operator={"name": "gaussian-blur", "sigmma": 1}, noise={"name": "gaussian"}))
    assert "'sigmma'" in str(caught.value)
    assert "has no sigma" in str(caught.value)
    with pytest.raises(BadParameter, match=r"a preset needs \[noise\]"):
        Pipeline.from_dict({key: value for key, value in tables(file).items() if key != "noise"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1", r"has no \[\[preset\]\]"),
        ("[[preset]]\nname = 'a'", "has the keys name"),
        (FILE.replace('name = "conjugate-gradients"', 'nam = "x"'), "a table with a name"),
        (FILE.replace('name = "smooth"', 'name = "smooth"\nchannels = 0'), "a number of channels"),
    ],
)
def test_malformed_preset_files(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text, "utf-8")
    with pytest.raises((BadFile, BadParameter), match=message):
        read_presets(path)

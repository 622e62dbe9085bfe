"""Methods that fail: each becomes a row with its reason, and everything else is complete."""

from preimage_compare import read

METHODS = """
[[method]]
label = "good"
solver = { name = "adjoint" }
[[method]]
label = "never converges"
solver = { name = "faulty-crawl" }
limits = { evaluations = 200 }
[[method]]
label = "raises"
solver = { name = "faulty-raise" }
[[method]]
label = "hoards"
solver = { name = "faulty-hoard" }
limits = { memory_mb = 500 }
[[method]]
label = "never ends"
solver = { name = "faulty-forever" }
limits = { seconds = 0.5 }
[[method]]
label = "NaN"
solver = { name = "faulty-nan" }
[[method]]
label = "does not fit"
prior = { name = "tv" }
solver = { name = "adjoint" }
[[method]]
label = "also good"
prior = { name = "tikhonov", weight = 0.1 }
solver = { name = "conjugate-gradients" }
"""


def test_every_failure_is_a_row_and_the_rest_is_complete(compare, write_suite, tmp_path, temporary):
    suite = write_suite(METHODS, count=1)
    run = compare(suite, "--out", tmp_path / "out", "--jobs", 2)
    assert run.returncode == 1, run.stderr
    cells = {cell["method"]: cell for cell in read(tmp_path / "out").cells}
    assert {m: c["outcome"] for m, c in cells.items()} == {
        "good": "ok",
        "never converges": "failed",
        "raises": "failed",
        "hoards": "failed",
        "never ends": "failed",
        "NaN": "failed",
        "does not fit": "skipped",
        "also good": "ok",
    }
    assert "200 evaluations" in cells["never converges"]["reason"]
    assert sum(cells["never converges"]["evaluations"].values()) == 201
    assert "a defect of this method" in cells["raises"]["reason"]
    assert "faulty_methods.py" in cells["raises"]["error"]["traceback"]
    assert "out of memory (its limit is 500 MB)" in cells["hoards"]["reason"]
    assert "more than the 0.5 s" in cells["never ends"]["reason"]
    assert cells["NaN"]["status"] == "diverged"
    assert "NaN" in cells["NaN"]["reason"]
    assert "[prior] would have no effect" in cells["does not fit"]["reason"]
    for method in ("good", "also good"):
        assert cells[method]["metrics"]["psnr"] > 20
    for reason in ("200 evaluations", "a defect", "out of memory", "0.5 s", "NaN", "no effect", "results: "):
        assert reason in run.stdout
    assert not temporary(tmp_path / "out")
    again = compare(suite, "--out", tmp_path / "out")
    assert again.returncode == 1
    assert "resumed: 8 of 8 cells were finished" in again.stdout


def test_a_lost_worker_is_a_row_and_the_pool_goes_on(compare, write_suite, tmp_path):
    methods = (
        '[[method]]\nlabel="dies"\nsolver={name="faulty-die"}\n[[method]]\nlabel="good"\nsolver={name="adjoint"}\n'
    )
    run = compare(write_suite(methods, count=1), "--out", tmp_path / "out")
    assert run.returncode == 1, run.stderr
    cells = read(tmp_path / "out").cells
    assert [cell["outcome"] for cell in cells if cell["method"] == "good"] == ["ok"]
    dead = [cell for cell in cells if cell["method"] == "dies"]
    assert [cell["outcome"] for cell in dead] == ["failed"]
    assert "killed by SIGKILL" in dead[0]["reason"]

"""What the command refuses, each in one sentence."""

from __future__ import annotations

import pytest

from evidence.__main__ import main


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--full", "--jobs", "0"], "--jobs must be at least 1, got 0."),
        (["--quick", "--jobs", "-3"], "--jobs must be at least 1, got -3."),
        (["--full", "--seeds", "0", "7"], "--seeds must be among 0, 1, 2, 3, 4, got 7."),
        (["--full", "--seeds", "-1"], "--seeds must be among 0, 1, 2, 3, 4, got -1."),
        (["--quick", "--seeds", "1"], "--seeds must be among 0, got 1."),
        (["--page", "--only", "mlip"], "--only must come with --quick or --full."),
        (["--page", "--seeds", "0"], "--seeds must come with --quick or --full."),
        (["--page", "--again", "there"], "--again must come with --full."),
        (["--page", "--plan"], "--plan must come with --quick or --full."),
        (["--quick", "--scale", "gpu"], "--scale must come with --page or --full."),
        (["--full", "--only", "moco"], "--only must be among"),
        (
            ["--full", "--again", "here", "--results", "./here"],
            "--again must be another folder than that of the committed",
        ),
    ],
)
def test_an_option_that_means_nothing_is_refused(line, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(line)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_page_without_results_leaves_the_old_one(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--page", "--results", str(tmp_path / "none")])
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith(
        f"python -m evidence: error: {tmp_path / 'none'} must have results of the full form, got none;"
    )


def test_damaged_results_are_one_sentence(tmp_path, capsys, add_result):
    path = tmp_path / "full" / "convirt" / "seed-0.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    for line in (["--page"], ["--full", "--plan", "--only", "convirt"]):
        with pytest.raises(SystemExit) as stopped:
            main([*line, "--results", str(tmp_path)])
        assert stopped.value.code == 1
        assert f"error: {path} is damaged; delete it, and it is made again.\n" in capsys.readouterr().err


def test_what_has_no_real_data_is_named(tmp_path, capsys, monkeypatch):
    from evidence import data, measures

    missing = {name: tmp_path / name for name in data.REAL}
    monkeypatch.setattr(data, "REAL", missing)
    monkeypatch.setattr(measures, "NEEDS", {"real_lungs": missing["lungs"]})
    assert main(["--quick", "--plan", "--only", "real"]) == 0
    said = capsys.readouterr().out
    assert "Left out: the arm real-medclip, whose real data are not here." in said
    assert "Left out: the measure real_lungs, whose real data are not here." in said


def test_an_arm_without_a_measure_that_can_be_made_is_not_trained(tmp_path, capsys, monkeypatch):
    from evidence import data, measures

    monkeypatch.setitem(data.REAL, "lungs", tmp_path / "missing.csv")
    monkeypatch.setattr(measures, "NEEDS", {"real_lungs": tmp_path / "missing.csv"})
    assert main(["--quick", "--plan", "--only", "real-lungs-masks"]) == 0
    left, *planned = capsys.readouterr().out.split("4 trainings to do")
    assert left.splitlines() == [
        *(f"Left out: the arm masks-{masks}, whose real data are not here." for masks in ("findings", "real")),
        "Left out: the measure real_lungs, whose real data are not here.",
    ]
    assert [line.split(",")[0].strip() for line in planned[0].splitlines()[1:]] == [
        "untrained",
        "supervised",
        "medvl",
        "masks-lungs",  # for the masks that it has learned itself
    ]


def test_what_a_form_leaves_out_is_named_and_no_error(capsys):
    assert main(["--quick", "--only", "umcl-kinds-long", "--plan"]) == 0
    said = capsys.readouterr().out
    assert "Left out of the quick form: " in said
    assert "umcl-all-long" in said
    assert main(["--quick", "--only", "medvl-mlip-demo"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "0 trainings to do, 2 at a time.",
        "medvl-mlip-demo: no results",
    ]
    assert main(["--full", "--plan", "--only", "umcl-kinds-long"]) == 0
    assert "Left out of the" not in capsys.readouterr().out

"""Results that were made again, beside the committed ones."""

from __future__ import annotations

import pytest

from evidence.__main__ import main
from evidence.reproduction import compare, left_out, report
from evidence.store import Store

LEVELS = (0.70, 0.72, 0.71, 0.73, 0.69)


@pytest.fixture
def add(add_result):
    """Writes a result of convirt."""

    def write(store: Store, seed: int, key: str = "k", **figures: float) -> None:
        add_result(store, "convirt", seed, {name.replace("__", "/"): value for name, value in figures.items()}, key=key)

    return write


@pytest.fixture
def stores(tmp_path, add):
    """Five committed seeds, and the folder of those made again."""
    committed = Store(tmp_path / "committed")
    for seed, level in enumerate(LEVELS):
        add(committed, seed, zero_shot__auroc=level, retrieval__image_to_text_chance=0.0125)
    return Store(tmp_path / "again"), committed


def test_the_same_figures_are_equal(stores, add):
    again, committed = stores
    add(again, 1, zero_shot__auroc=0.72, retrieval__image_to_text_chance=0.0125)
    found = compare(again, committed, "full")
    assert [(repeated.figure, repeated.equal, repeated.within) for repeated in found] == [
        ("retrieval/image_to_text_chance", True, True),
        ("zero_shot/auroc", True, True),
    ]
    assert report(found) == (
        "Made again: arms 1, figures 2. Equal to the last decimal: 2. "
        "Within the interval that the committed seeds predict (95 %): 2. Outside: 0."
    )


@pytest.mark.parametrize(("value", "within"), [(0.757, True), (0.759, False), (0.663, True), (0.661, False)])
def test_another_figure_is_within_the_interval_or_named(stores, add, value, within):
    again, committed = stores  # 0.71 with a standard deviation of 0.0158: 2.776 x 0.0158 x sqrt(1 + 1 / 5) = 0.0481
    add(again, 0, zero_shot__auroc=value)
    (repeated,) = compare(again, committed, "full")
    assert (repeated.equal, repeated.within) == (False, within)
    assert repeated.half_width == pytest.approx(0.04809, abs=1e-5)
    named = f"  convirt, zero_shot/auroc: {value}, expected 0.710 [0.662, 0.758]"
    assert report([repeated]).splitlines()[1:] == ([] if within else [named])


def test_seeds_are_compared_by_their_mean(stores, add):
    again, committed = stores
    for seed in range(5):
        add(again, seed, zero_shot__auroc=0.75 if seed % 2 else 0.70)
    (repeated,) = compare(again, committed, "full")
    assert repeated.again == pytest.approx(0.72)
    assert repeated.half_width == pytest.approx(0.02776, abs=1e-5)  # 2.776 x 0.0158 x sqrt(2 / 5)
    assert not repeated.equal


def test_a_figure_that_never_varied_must_be_the_same(stores, add):
    again, committed = stores
    add(again, 0, retrieval__image_to_text_chance=0.0126)
    assert not compare(again, committed, "full")[0].within


def test_other_settings_are_no_repetition(stores, add):
    again, committed = stores
    add(again, 0, key="other", zero_shot__auroc=0.7)
    with pytest.raises(ValueError, match="The committed results of convirt are of other settings"):
        compare(again, committed, "full")


def test_the_command_trains_what_is_missing_in_the_other_folder_and_compares(
    stores, add, tmp_path, capsys, monkeypatch
):
    _, committed = stores
    asked = []

    def train(tasks, jobs):
        asked.extend((task.arm, task.seed, task.results) for task in tasks)
        add(Store(tmp_path / "again"), 3, zero_shot__auroc=0.73)
        return []

    monkeypatch.setattr("evidence.runner.run_tasks", train)
    line = [
        "--full",
        "--only",
        "convirt-retrieval",
        "--results",
        str(committed.folder),
        "--work",
        str(tmp_path / "work"),
    ]
    assert main([*line, "--again", str(tmp_path / "again"), "--seeds", "3"]) == 0
    assert asked == [(arm, 3, tmp_path / "again") for arm in ("untrained", "supervised", "convirt")]
    assert "Made again: arms 1, figures 1. Equal to the last decimal: 1." in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--quick", "--again", str(tmp_path / "again")])
    assert "--again must come with --full." in capsys.readouterr().err


def test_figures_of_one_side_are_named(stores, add):
    again, committed = stores
    add(again, 0, zero_shot__auroc=0.71, lungs__dice_5=0.8)
    found = compare(again, committed, "full")
    assert [repeated.figure for repeated in found] == ["zero_shot/auroc"]
    names = left_out(again, committed, "full")
    assert names == ["convirt, lungs/dice_5", "convirt, retrieval/image_to_text_chance"]
    assert report(found, names).splitlines()[1:] == [
        "Not compared, as only one of the two has them or they are committed for fewer than two seeds:",
        *(f"  {name}" for name in names),
    ]


def test_nothing_made_again_is_no_success(tmp_path):
    assert report(compare(Store(tmp_path / "a"), Store(tmp_path / "b"), "full")) == (
        "Nothing was made again, so that nothing is compared."
    )

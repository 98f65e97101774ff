"""A labeling run that is killed, ended or repeated: the same output in the end, and nothing left over."""

from __future__ import annotations

import contextlib
import csv
import gzip
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas
import pytest

from medvl.data.tables.output import TableOutput
from medvl.workflows import label_table

pytestmark = pytest.mark.slow

REPORTS = [
    "Small left effusion. No edema.",
    "",
    'Possible pneumonia,\n"really".',
    "=1+2. Fracture of a rib.",
    "Lungs clear.",
]
# Small blocks and a record after each, so that a kill hits every step.
CODE = """
import sys
import medvl.data.tables.output as output, medvl.workflows.labeling as labeling
from medvl.utils.signals import StopSignals
labeling.BLOCK_ROWS = 16
output._SECONDS_BETWEEN_RECORDS = float(sys.argv[5])
stop = StopSignals()
try:
    with stop:
        labeling.label_table(
            sys.argv[1], "text", sys.argv[2], num_workers=int(sys.argv[3]), resume=sys.argv[4] == "resume"
        )
except KeyboardInterrupt:
    sys.exit(128 + stop.received)
"""


def write(path, number):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "age"])
        writer.writerows([f"r{i}", f"{REPORTS[i % 5]} {i}", 50 + i % 40] for i in range(number))
    return path


def start(table, output, workers=0, resume=True, seconds=0.0):
    command = [sys.executable, "-c", CODE, table, output, str(workers), "resume" if resume else "", str(seconds)]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)


def wait_for(path, process):
    while not path.exists() and process.poll() is None:
        time.sleep(0.002)


def running_in_group(group):
    """Whether a process of a group runs; one that has ended and that nobody has waited for does not."""
    if not Path("/proc/self/stat").is_file():
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        return True
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, own = entry.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it ended meanwhile
            continue
        if int(own) == group and state not in "ZX":
            return True
    return False


@pytest.mark.parametrize(("suffix", "workers"), [(".csv.gz", 2), (".parquet", 0)])
def test_kills_at_random_moments_change_nothing(tmp_path, suffix, workers, monkeypatch):
    monkeypatch.setattr("medvl.workflows.labeling.BLOCK_ROWS", 16)
    table, output = write(tmp_path / "in.csv", 2000), tmp_path / f"out{suffix}"
    label_table(table, "text", tmp_path / f"whole{suffix}")
    draw = random.Random(suffix)
    kills, seconds = 0, 0.4
    while kills < 5:
        process = start(table, output, workers)
        wait_for(tmp_path / f"out{suffix}.progress.partial", process)
        begun = time.monotonic()
        try:
            process.wait(draw.random() * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        else:
            assert process.returncode == 0, process.stderr.read()
            output.unlink()  # it was faster than this process: once more from the start, and sooner
            seconds = min(seconds, time.monotonic() - begun)
        process.stderr.close()
    assert start(table, output, workers).wait() == 0
    assert output.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", f"out{suffix}", f"whole{suffix}"]


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_process_that_is_ended_leaves_the_old_output_and_no_other_file(tmp_path, workers):
    table, output = write(tmp_path / "in.csv", 200_000), tmp_path / "out.csv"
    output.write_text("old")
    process = start(table, output, workers, resume=False)
    wait_for(tmp_path / "out.csv.progress.partial", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]
    assert not running_in_group(process.pid)


def test_workers_end_with_a_process_that_is_killed(tmp_path):
    table, output = write(tmp_path / "in.csv", 200_000), tmp_path / "out.csv"
    process = start(table, output, 2)
    wait_for(tmp_path / "out.csv.progress.partial", process)
    process.kill()
    process.wait()
    try:
        while running_in_group(process.pid):
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def interrupted(tmp_path, monkeypatch):
    """A table whose labeling stopped after 48 rows."""
    monkeypatch.setattr("medvl.workflows.labeling.BLOCK_ROWS", 16)
    table = write(tmp_path / "in.csv", 100)

    def stop(rows, progress):
        if rows == 48:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label_table(table, "text", tmp_path / "out.csv", resume=True, progress=stop)
    assert not (tmp_path / "out.csv").exists()
    return table


def test_only_the_rest_is_labeled(tmp_path, monkeypatch):
    table = interrupted(tmp_path, monkeypatch)
    done = []
    summary = label_table(table, "text", tmp_path / "out.csv", resume=True, progress=lambda rows, _: done.append(rows))
    assert done == [64, 80, 96, 100]
    assert vars(summary) == vars(label_table(table, "text", tmp_path / "whole.csv"))
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_another_table_or_other_options_are_not_gone_on_with(tmp_path, monkeypatch):
    table = interrupted(tmp_path, monkeypatch)
    with pytest.raises(
        ValueError, match=r"^output: out\.csv\.partial was begun by a run with other options, columns or rules"
    ):
        label_table(table, "text", tmp_path / "out.csv", resume=True, explain=True)
    text = table.read_text()
    table.write_text(text.replace("r3,", "r03,", 1))
    with pytest.raises(
        ValueError, match=r"^path: the first 48 rows of in\.csv are not those that the interrupted run has"
    ):
        label_table(table, "text", tmp_path / "out.csv", resume=True)
    table.write_text(text + "r100,Pneumothorax.,7\n")  # rows after those that are done may change
    assert label_table(table, "text", tmp_path / "out.csv", resume=True).rows == 101


def test_a_run_that_does_not_resume_begins_anew(tmp_path, monkeypatch):
    table = interrupted(tmp_path, monkeypatch)
    assert label_table(table, "text", tmp_path / "out.csv", explain=True).rows == 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_two_runs_do_not_write_one_file(tmp_path):
    table = write(tmp_path / "in.csv", 300)

    def again(rows, progress):
        with pytest.raises(ValueError, match=r"^output: another run is writing .*out\.csv\.$"):
            label_table(table, "text", tmp_path / "out.csv")

    label_table(table, "text", tmp_path / "out.csv", progress=again)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 301


def test_links_devices_and_pipes_are_written_to(tmp_path):
    table = write(tmp_path / "in.csv", 300)
    label_table(table, "text", tmp_path / "whole.csv")
    whole = (tmp_path / "whole.csv").read_bytes()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real.csv").write_text("old")
    (tmp_path / "there" / "real.csv").chmod(0o640)
    (tmp_path / "link.csv").symlink_to("there/real.csv")
    (tmp_path / "broken.csv").symlink_to("there/new.csv")
    for link, target in (("link.csv", "real.csv"), ("broken.csv", "new.csv")):
        label_table(table, "text", tmp_path / link)
        assert (tmp_path / link).is_symlink()
        assert (tmp_path / "there" / target).read_bytes() == whole
    assert (tmp_path / "there" / "real.csv").stat().st_mode & 0o777 == 0o640
    label_table(table, "text", "/dev/null")
    assert not os.path.isfile("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        label_table(table, "text", tmp_path / "pipe")
        assert reader.stdout.read() == whole
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["new.csv", "real.csv"]


@pytest.mark.parametrize(("workers", "compress"), [("0", bytes), ("2", gzip.compress)])
def test_standard_input_and_output(tmp_path, workers, compress):
    table = write(tmp_path / "in.csv", 600)
    label_table(table, "text", tmp_path / "whole.csv")
    command = [
        sys.executable,
        "-m",
        "medvl",
        "label",
        "-",
        "--report-column",
        "text",
        "--output",
        "-",
        "--workers",
        workers,
    ]
    done = subprocess.run(command, input=compress(table.read_bytes()), capture_output=True, check=True)
    assert done.stdout == (tmp_path / "whole.csv").read_bytes()
    assert b"600 reports, 0 of them empty; 600 rows in standard output." in done.stderr


def test_workbooks_and_parquet_hold_numbers_and_texts_as_they_are(tmp_path):
    table = write(tmp_path / "in.csv", 20)
    label_table(table, "text", tmp_path / "out.csv", text_unit="sentence", raw_cells=True)
    expected = pandas.read_csv(tmp_path / "out.csv", dtype={"sentence": str})
    for suffix, read in ((".parquet", pandas.read_parquet), (".xlsx", pandas.read_excel)):
        label_table(table, "text", tmp_path / f"out{suffix}", text_unit="sentence")
        found = read(tmp_path / f"out{suffix}")
        assert found["sentence"].tolist() == expected["sentence"].tolist()
        assert "=1+2." in set(found["sentence"])
        assert found["Edema"].dropna().unique().tolist() == [0]
        numbers = found.drop(columns=["id", "age", "sentence"]).astype(float)
        pandas.testing.assert_frame_equal(numbers, expected[numbers.columns].astype(float))


@pytest.mark.parametrize("name", ["out.csv.partial", "out.csv.progress.partial"])
def test_what_was_damaged_is_labeled_again(tmp_path, monkeypatch, name):
    monkeypatch.setattr("medvl.workflows.labeling.BLOCK_ROWS", 16)
    table, output = write(tmp_path / "in.csv", 64), tmp_path / "out.csv"
    label_table(table, "text", tmp_path / "whole.csv")
    stopped = pytest.MonkeyPatch()
    blocks = []

    def stop(self, state, end=TableOutput.end_block):
        end(self, state)
        blocks.append(state)
        if len(blocks) == 2:
            raise KeyboardInterrupt

    with stopped.context() as patch:
        patch.setattr(TableOutput, "end_block", stop)
        with pytest.raises(KeyboardInterrupt):
            label_table(table, "text", output, resume=True)
    damaged = tmp_path / name
    content = damaged.read_bytes()
    damaged.write_bytes(content[:30] + bytes([content[30] ^ 1]) + content[31:])
    label_table(table, "text", output, resume=True)
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()

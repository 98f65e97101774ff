"""Packing: the same bytes by any number of processes and after any interruption, and errors in a sentence."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys

import pytest
from packed_tables import LABELS, write_table

from medvl.data import StudyDataset, StudyLoader, read_manifest
from medvl.data.shard_verification import verify_packed
from medvl.transforms import image_preprocessing
from medvl.utils.errors import DiskFullError, StudyError
from medvl.utils.tar_members import close_files
from medvl.workflows import PackSettings, pack_studies

SETTINGS = PackSettings(image_size=16, shard_size=5)
COLUMNS = {"label_column": LABELS}


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path / "source")


def every_file(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Stop(Exception):
    pass


def interrupted(table, folder, shards=2, **options):
    """A folder whose packing stopped after some shards."""

    def stop(done, total):
        if done >= shards * SETTINGS.shard_size:
            raise Stop

    with pytest.raises(Stop):
        pack_studies(table, folder, SETTINGS, columns=COLUMNS, progress=stop, **options)
    assert not (folder / "index.json").exists()


def test_the_bytes_do_not_depend_on_the_processes(table, tmp_path):
    seen = []
    for workers in (0, 2):
        summary = pack_studies(
            table,
            tmp_path / f"{workers}",
            SETTINGS,
            columns=COLUMNS,
            num_workers=workers,
            progress=lambda done, total: seen.append((done, total)),
        )
        assert (summary.shards, summary.studies, summary.images, summary.kept) == (5, 24, 21, 0)
    assert every_file(tmp_path / "0") == every_file(tmp_path / "2")
    assert seen == [(5, 24), (10, 24), (15, 24), (20, 24), (24, 24)] * 2
    assert sorted(os.listdir(tmp_path / "0")) == [
        "SHA256SUMS", "index.json", *(f"shard-00000{i}.tar" for i in range(5)), "studies.jsonl", "text_labels.npz"
    ]  # fmt: skip
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "0", capture_output=True, text=True, check=True
    )
    assert done.stdout.count(": OK\n") == 8


class TestResume:
    def test_only_the_rest_is_packed(self, table, tmp_path):
        interrupted(table, tmp_path / "packed")
        times = {path: path.stat().st_mtime_ns for path in (tmp_path / "packed").glob("*.tar")}
        assert len(times) == 2
        summary = pack_studies(table, tmp_path / "packed", SETTINGS, columns=COLUMNS, resume=True)
        assert summary.kept == 2
        assert all(path.stat().st_mtime_ns == before for path, before in times.items())
        pack_studies(table, tmp_path / "whole", SETTINGS, columns=COLUMNS)
        assert every_file(tmp_path / "packed") == every_file(tmp_path / "whole")

    def test_a_damaged_record_is_packed_again(self, table, tmp_path):
        interrupted(table, tmp_path / "packed")
        record = tmp_path / "packed/.progress/shard-000000.tar.json"
        content = record.read_bytes()
        assert b'"patient_id"' in content
        record.write_bytes(content.replace(b'"patient_id"', b'"qatient_id"'))
        summary = pack_studies(table, tmp_path / "packed", SETTINGS, columns=COLUMNS, resume=True)
        assert summary.kept == 1
        pack_studies(table, tmp_path / "whole", SETTINGS, columns=COLUMNS)
        assert every_file(tmp_path / "packed") == every_file(tmp_path / "whole")
        interrupted(table, tmp_path / "other")
        (tmp_path / "other/.progress/settings.json").write_text("{")
        with pytest.raises(ValueError, match=r"settings\.json is damaged: its content is not what was saved\.$"):
            pack_studies(table, tmp_path / "other", SETTINGS, columns=COLUMNS, resume=True)

    def test_a_whole_folder_stays(self, table, tmp_path):
        first = pack_studies(table, tmp_path / "packed", SETTINGS, columns=COLUMNS)
        before = every_file(tmp_path / "packed")
        (tmp_path / "packed/.progress").mkdir()  # as after a kill at the very end
        again = pack_studies(table, tmp_path / "packed", SETTINGS, columns=COLUMNS, resume=True)
        assert (again.kept, again.studies, again.bytes) == (5, first.studies, first.bytes)
        assert every_file(tmp_path / "packed") == before
        assert not (tmp_path / "packed/.progress").exists()

    @pytest.mark.parametrize("change", ["longer", "shorter", "report", "order"])
    def test_a_whole_folder_of_another_table_is_refused(self, table, tmp_path, change):
        """Not said to hold a table of which it holds an earlier state."""
        (table.parent / "images/7.png").write_bytes(b"")
        options = {"columns": COLUMNS, "on_error": "skip"}
        pack_studies(table, tmp_path / "packed", SETTINGS, **options)
        assert (
            pack_studies(table, tmp_path / "packed", SETTINGS, **options, resume=True).kept == 5
        )  # with a study skipped
        before = every_file(tmp_path / "packed")
        header, *lines = table.read_text().splitlines(keepends=True)
        changed = {
            "longer": [*lines, lines[0].replace("s0", "new")],
            "shorter": lines[:-1],
            "report": [line.replace("Possible pneumonia.", "Pneumonia.") for line in lines],
            "order": [lines[1], lines[0], *lines[2:]],
        }[change]
        assert changed != lines
        table.write_text("".join([header, *changed]))
        with pytest.raises(ValueError, match=r"has changed since it was packed to .*packed, which is whole"):
            pack_studies(table, tmp_path / "packed", SETTINGS, **options, resume=True)
        assert every_file(tmp_path / "packed") == before

    @pytest.mark.parametrize("change", ["damage", "image", "report", "removed"])
    def test_what_has_changed_is_packed_again(self, table, tmp_path, change):
        interrupted(table, tmp_path / "packed")
        shard = tmp_path / "packed/shard-000001.tar"
        if change == "damage":
            damaged = bytearray(shard.read_bytes())
            damaged[700] ^= 1
            shard.write_bytes(damaged)
        elif change == "image":
            image = table.parent / "images/7.png"
            image.write_bytes((table.parent / "images/1.png").read_bytes())
        elif change == "report":
            table.write_text(table.read_text().replace("Possible pneumonia.", "Pneumonia."))
        else:
            lines = table.read_text().splitlines(keepends=True)
            table.write_text("".join(lines[:4] + lines[5:]))
        summary = pack_studies(table, tmp_path / "packed", SETTINGS, columns=COLUMNS, resume=True)
        assert summary.kept == {"damage": 1, "image": 1, "report": 0, "removed": 0}[change]
        pack_studies(table, tmp_path / "whole", SETTINGS, columns=COLUMNS)
        assert every_file(tmp_path / "packed") == every_file(tmp_path / "whole")

    def test_shards_of_a_longer_table_are_removed(self, table, tmp_path):
        interrupted(table, tmp_path / "packed", shards=4)
        table.write_text("".join(table.read_text().splitlines(keepends=True)[:9]))
        pack_studies(table, tmp_path / "packed", SETTINGS, columns=COLUMNS, resume=True)
        assert len(list((tmp_path / "packed").glob("*.tar"))) == 2
        assert not verify_packed(tmp_path / "packed")

    def test_other_settings_are_refused(self, table, tmp_path):
        interrupted(table, tmp_path / "packed")
        with pytest.raises(
            ValueError, match=r"^image_size is 32 but was 16 in .*packed; resume it with the same settings, or"
        ):
            pack_studies(table, tmp_path / "packed", PackSettings(32, shard_size=5), columns=COLUMNS, resume=True)

    def test_what_is_there_is_not_written_over(self, table, tmp_path):
        interrupted(table, tmp_path / "packed")
        with pytest.raises(
            ValueError, match=r"already holds an interrupted packing; continue it \(--resume\) or choose"
        ):
            pack_studies(table, tmp_path / "packed", SETTINGS, columns=COLUMNS)
        pack_studies(table, tmp_path / "packed", SETTINGS, columns=COLUMNS, resume=True)
        with pytest.raises(
            ValueError, match=r"already holds packed studies; continue it \(--resume\) or choose another folder"
        ):
            pack_studies(table, tmp_path / "packed", SETTINGS, columns=COLUMNS)
        (tmp_path / "other").mkdir()
        (tmp_path / "other/notes.txt").write_text("mine")
        with pytest.raises(ValueError, match=r"other must be a new or empty folder, got one with notes\.txt\.$"):
            pack_studies(table, tmp_path / "other", SETTINGS, columns=COLUMNS, resume=True)
        assert every_file(tmp_path / "other") == {"notes.txt": b"mine"}


class TestErrors:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_an_image_that_cannot_be_read(self, table, tmp_path, workers):
        (table.parent / "images/7.png").write_bytes((table.parent / "images/7.png").read_bytes()[:200])
        with pytest.raises(StudyError, match=r"^study 's7', image: the file .*7\.png cannot be read as an image"):
            pack_studies(table, tmp_path / "raised", SETTINGS, columns=COLUMNS, num_workers=workers)
        summary = pack_studies(
            table, tmp_path / "skipped", SETTINGS, columns=COLUMNS, num_workers=workers, on_error="skip"
        )
        assert (summary.studies, summary.images, [error.study_id for error in summary.skipped]) == (23, 20, ["s7"])
        manifest = read_manifest(f"shards:{tmp_path / 'skipped'}")
        assert [study["row"] for study in manifest.studies] == [row for row in range(1, 25) if row != 8]
        assert manifest.counts == {"rows": 24, "skipped": 1, "image": 20, "report": 19, "label": 23}
        assert not verify_packed(tmp_path / "skipped")

    def test_a_table_of_which_nothing_is_left(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"no image")
        (tmp_path / "cases.csv").write_text("image\na.png\n")
        with pytest.raises(
            ValueError, match=r"^Every study of cases\.csv was skipped for an error, the first: study 'a\.png'"
        ):
            pack_studies(tmp_path / "cases.csv", tmp_path / "packed", SETTINGS, on_error="skip")

    def test_settings_are_checked(self, table, tmp_path):
        for options, expected in (
            ({"image_size": 0}, r"^image_size must be at least 1, got 0\.$"),
            ({"dtype": "int8"}, r"^dtype must be one of 'uint8', 'uint16', 'float16', 'float32', got 'int8'\.$"),
            ({"spatial_dims": 4}, r"^spatial_dims must be one of 2, 3, got 4\.$"),
            ({"hu_range": (1, 0)}, r"^hu_range must be two numbers in ascending order"),
            ({"shard_size": 0}, r"^shard_size must be at least 1, got 0\.$"),
        ):
            with pytest.raises(ValueError, match=expected):
                PackSettings(**options)
        with pytest.raises(
            ValueError, match=r"^data must be a table or NAME:PATH of a public data set, got 'synthetic'\.$"
        ):
            pack_studies("synthetic", tmp_path / "packed")
        with pytest.raises(ValueError, match=r"^label_column: there is no column 'Edemas' in cases\.csv\.$"):
            pack_studies(table, tmp_path / "packed", columns={"label_column": "Edemas"})

    def test_no_space_left(self, table, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("medvl.utils.io.os.fsync", full)
            with pytest.raises(DiskFullError, match=r"No space left on the disk mounted at /"):
                pack_studies(table, tmp_path / "packed", SETTINGS, columns=COLUMNS)
        assert not list((tmp_path / "packed").glob("*.tar*"))
        pack_studies(table, tmp_path / "packed", SETTINGS, columns=COLUMNS, resume=True)
        assert not verify_packed(tmp_path / "packed")

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_full_disk_names_the_shard_and_the_run_goes_on_later(self, table, tmp_path, monkeypatch, workers):
        monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python would keep cut files of what is imported now
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
        try:
            with pytest.raises(DiskFullError) as caught:
                pack_studies(table, tmp_path / "packed", SETTINGS, columns=COLUMNS, num_workers=workers)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert caught.value.filename == str(tmp_path / "packed/shard-000000.tar")
        assert "permits, on the disk mounted at /" in caught.value.strerror
        assert not list((tmp_path / "packed").glob("*.tar*"))
        pack_studies(table, tmp_path / "packed", SETTINGS, columns=COLUMNS, resume=True, num_workers=workers)
        assert not verify_packed(tmp_path / "packed")

    def test_a_read_only_folder(self, table, tmp_path, monkeypatch):
        def read_only(**_):
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr("medvl.utils.io.tempfile.TemporaryFile", read_only)
        with pytest.raises(OSError, match=r"packed/index\.json cannot be written: .*: Read-only file system\.$"):
            pack_studies(table, tmp_path / "packed", SETTINGS, columns=COLUMNS)
        assert not (tmp_path / "packed").exists()


def flipped(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


class TestVerify:
    @pytest.fixture
    def packed(self, table, tmp_path):
        pack_studies(table, tmp_path / "packed", SETTINGS, columns=COLUMNS)
        assert verify_packed(tmp_path / "packed") == []
        return tmp_path / "packed"

    def test_every_flipped_byte_of_a_shard_is_named(self, packed):
        shard = packed / "shard-000001.tar"
        size = shard.stat().st_size
        columns = json.loads((packed / "studies.jsonl").read_bytes().splitlines()[1])
        for position in range(0, size, 331):
            flipped(shard, position)
            (said,) = verify_packed(packed)
            flipped(shard, position)
            inside = [
                study
                for study, start, length in zip(columns["study_id"], columns["offset"], columns["size"], strict=True)
                if start <= position < start + length
            ]
            if inside:
                assert said.startswith(f"{shard} is damaged: the image of study {inside[0]!r} (bytes "), position
            else:
                assert said.startswith(f"{shard} is damaged: byte {position}, "), (position, said)
        assert verify_packed(packed) == []

    def test_cut_off_missing_and_longer_files(self, packed):
        os.truncate(packed / "shard-000000.tar", 600)
        (packed / "shard-000002.tar").unlink()
        with (packed / "shard-000003.tar").open("ab") as file:
            file.write(b"x")
        (packed / "text_labels.npz").unlink()
        size = {name: entry["bytes"] for name, entry in self.entries(packed).items()}
        assert verify_packed(packed) == [
            f"{packed}/text_labels.npz is missing.",
            f"{packed}/shard-000000.tar is cut off: it has 600 bytes, expected {size['shard-000000.tar']}.",
            f"{packed}/shard-000002.tar is missing.",
            f"{packed}/shard-000003.tar is longer than it was written: it has {size['shard-000003.tar'] + 1} bytes, "
            f"expected {size['shard-000003.tar']}.",
        ]

    @staticmethod
    def entries(packed):
        index = json.loads((packed / "index.json").read_text())
        return {entry["name"]: entry for entry in index["files"] + index["shards"]}

    @pytest.mark.parametrize("name", ["studies.jsonl", "text_labels.npz"])
    def test_the_other_files(self, packed, name):
        flipped(packed / name, (packed / name).stat().st_size // 2)
        assert verify_packed(packed) == [f"{packed / name} is damaged."]
        if name == "studies.jsonl":
            flipped(packed / "shard-000000.tar", 5)
            assert verify_packed(packed)[1:] == [f"{packed}/shard-000000.tar is damaged."]

    def test_every_flipped_byte_of_the_index_is_noticed(self, packed):
        for name in ("index.json", "SHA256SUMS"):
            for position in range(0, (packed / name).stat().st_size, 17):
                flipped(packed / name, position)
                try:
                    said = verify_packed(packed)
                except ValueError as error:
                    said = [str(error)]
                except (KeyError, TypeError, AttributeError) as error:
                    pytest.fail(f"byte {position} of {name}: {error!r}")
                flipped(packed / name, position)
                assert said, (name, position)
                assert any(str(packed) in sentence for sentence in said)
        (packed / "SHA256SUMS").unlink()
        assert verify_packed(packed) == [f"{packed}/SHA256SUMS is missing."]

    def test_training_notices_too(self, packed):
        studies = read_manifest(f"shards:{packed}").drop_missing("image").studies[:5]
        flipped(packed / "shard-000000.tar", 600)
        dataset = StudyDataset(
            [{"image": s["image"], "study_id": s["study_id"]} for s in studies], image_preprocessing(16)
        )
        with pytest.raises(
            StudyError,
            match=r"^study 's0', image: the packed image cannot be read: .*0\.tar is damaged: the \d+ bytes from byte 512 on",
        ):
            dataset[0]
        loader = StudyLoader(dataset, 2, on_error="skip", num_workers=1)
        assert [study for batch in loader for study in batch["study_id"]] == ["s1", "s2", "s3", "s4"]
        assert list(loader.skipped) == ["s0"]
        (packed / "shard-000000.tar").unlink()
        close_files()
        with pytest.raises(StudyError, match=r"shard-000000\.tar cannot be read: No such file or directory\.$"):
            dataset[1]

    def test_a_web_server_is_not_verified(self):
        with pytest.raises(OSError, match=r"^https://host/packed is on a web server; copy the folder to verify it\.$"):
            verify_packed("shards:https://host/packed")

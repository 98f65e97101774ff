"""Packed studies are the studies of the table that they were packed from: items, splits, order, and what else reads them."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import tracemalloc
from base64 import b64encode
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from monai.transforms import SelectItemsd
from packed_tables import LABELS, web_server, write_table, write_volumes
from PIL import Image

from medvl.data import StudyDataset, StudyLoader, load_sources, load_studies, read_manifest
from medvl.data.leaks import find_shared_items
from medvl.data.locations import parse_location
from medvl.data.samplers import DistributedBatchSampler
from medvl.data.shards import PackedLocation, decode_labels, encode_label, read_studies
from medvl.data.study_list import StudyList
from medvl.transforms import LoadStudyImage, RadiographIntensityd, image_augmentation, image_preprocessing
from medvl.transforms.packed_image import decode_image, encode_image
from medvl.utils import range_cache
from medvl.utils.errors import StudyError
from medvl.utils.io import content_sha256
from medvl.utils.tar_members import TarMember
from medvl.workflows import PackSettings, pack_studies
from medvl.workflows.locations import absolute_locations

SIZE = 32
STEPS = [image_preprocessing(SIZE), SelectItemsd(["image", "study_id", "row"])]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("table") / "source")


@pytest.fixture(scope="module")
def packed(table):
    folder = table.parent.parent / "packed"
    pack_studies(table, folder, PackSettings(SIZE, shard_size=5), columns={"label_column": LABELS})
    return folder


def plain(study):
    """A study as values that can be compared, without the place of its image."""
    content = {key: value for key, value in study.items() if key != "image"}
    if "label" in content:
        content["label"] = str(content["label"].tolist())
    return content | {"has_image": "image" in study}


class TestManifest:
    @pytest.mark.parametrize("split", [False, True])
    def test_is_that_of_the_table(self, tmp_path, split):
        source = write_table(tmp_path / "source", split=split)
        before = read_manifest(source, label_column=LABELS)
        pack_studies(source, tmp_path / "packed", PackSettings(SIZE, shard_size=5), columns={"label_column": LABELS})
        after = read_manifest(f"shards:{tmp_path / 'packed'}")
        assert list(map(plain, after.studies)) == list(map(plain, before.studies))
        assert (after.names, after.counts) == (before.names, before.counts)
        assert after.summary().partition(":")[2] == before.summary().partition(":")[2]
        assert after.name == "packed"
        for seed in (0, 1):
            one, other = (manifest.assign_splits(seed=seed).studies for manifest in (before, after))
            assert [study["split"] for study in one] == [study["split"] for study in other]
            assert len({study["split"] for study in one}) == 3

    def test_patients_that_share_a_file_stay_together(self, table, packed):
        studies = read_manifest(f"shards:{packed}").studies
        assert studies[8]["image"] == studies[9]["image"] == studies[12]["image"] != studies[14]["image"]
        images = [item for item in find_shared_items(studies) if item.kind == "image"]
        assert [item.rows for item in images] == [(8, 9, 12)]

    def test_a_folder_may_be_moved(self, packed, tmp_path):
        before = read_manifest(f"shards:{packed}").assign_splits()
        shutil.copytree(packed, tmp_path / "moved")
        after = read_manifest(f"shards:{tmp_path / 'moved'}").assign_splits()
        assert after.fingerprint() == before.fingerprint()
        assert LoadStudyImage()(after.studies[0]["image"]).equal(LoadStudyImage()(before.studies[0]["image"]))

    def test_a_changed_image_changes_the_fingerprint(self, tmp_path):
        prints = []
        for value in (0, 1):
            source = write_table(tmp_path / f"{value}", count=6)
            pixels = np.asarray(Image.open(source.parent / "images/0.png")).copy()
            pixels[0, 0] = 100 * value
            Image.fromarray(pixels).save(source.parent / "images/0.png", compress_level=0)
            pack_studies(source, tmp_path / f"packed{value}", PackSettings(40))
            prints.append(read_manifest(f"shards:{tmp_path / f'packed{value}'}").fingerprint())
        assert prints[0] != prints[1]

    def test_copies_in_two_splits_are_counted(self, tmp_path, caplog):
        source = write_table(tmp_path / "source", split=True)
        shutil.copy(source.parent / "images/0.png", source.parent / "images/7.png")  # of train and test
        pack_studies(source, tmp_path / "packed", PackSettings(SIZE))
        load_studies(f"shards:{tmp_path / 'packed'}", tmp_path)
        (record,) = (record for record in caplog.records if "same content" in record.message)
        assert "1 image has copies of the same content in two splits, the first in study 's0' (train)" in record.message

    def test_hashes_of_images_are_kept_by_what_is_done_with_studies(self, packed):
        studies = read_manifest(f"shards:{packed}").drop_missing("image").assign_splits().studies
        digests = read_manifest(f"shards:{packed}").studies.image_digests
        digests = digests[digests != 0]
        assert len(set(digests.tolist())) > 10
        assert studies.image_digests.tolist() == digests.tolist()
        assert (studies + studies).image_digests.tolist() == 2 * digests.tolist()
        others = StudyList.of([{"study_id": "a", "image": "a.png"}])
        assert (studies + others).image_digests is None
        assert others.select([True]).with_columns({}).image_digests is None

    def test_columns_are_its_own(self, packed):
        with pytest.raises(
            ValueError, match=r"^columns and image files cannot be named for shards:.*, which has its own\.$"
        ):
            read_manifest(f"shards:{packed}", label_column="Edema")

    def test_another_folder_is_refused(self, packed, tmp_path):
        with pytest.raises(
            FileNotFoundError, match=r"holds no index\.json: it is no folder that medvl pack has finished\.$"
        ):
            read_manifest(f"shards:{tmp_path}")
        index = json.loads((packed / "index.json").read_text())
        (tmp_path / "index.json").write_text(json.dumps({**index, "format": "other 2"}))
        with pytest.raises(ValueError, match=r"was packed by another version of medvl \(other 2\); pack it again\.$"):
            read_manifest(f"shards:{tmp_path}")
        index["shards"][0]["name"] = "../shard-000000.tar"
        (tmp_path / "index.json").write_text(json.dumps(index))
        with pytest.raises(
            ValueError, match=r"index\.json is damaged: \.\./shard-000000\.tar is not the name of a file\.$"
        ):
            read_manifest(f"shards:{tmp_path}")

    def test_locations(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert absolute_locations({"data": "shards:packed"}) == {"data": f"shards:{tmp_path / 'packed'}"}
        web = {"sources": ["image-text=shards:https://host:80/packed"]}
        assert absolute_locations(web) == web
        assert str(parse_location("shards:https://host/packed/")) == "shards:https://host/packed"
        with pytest.raises(
            ValueError, match=r"^source must begin with one of .* before the colon, got 'shard:packed'\.$"
        ):
            parse_location("shard:packed")


class TestItems:
    @pytest.mark.parametrize(("dtype", "step"), [("uint8", 1 / 255), ("uint16", 1 / 65535), ("float32", 0)])
    def test_pixels_are_those_of_the_files(self, table, tmp_path, dtype, step):
        folder = tmp_path / "packed"
        pack_studies(table, folder, PackSettings(SIZE, dtype=dtype), columns={"label_column": LABELS})
        steps = image_preprocessing(SIZE, allow_missing_keys=True)
        files = StudyDataset(read_manifest(table, label_column=LABELS).studies, steps)
        shards = StudyDataset(read_manifest(f"shards:{folder}").studies, steps)
        seen = 0
        for one, other in zip(files, shards, strict=True):
            assert plain(one) == plain(other)
            if "image" in one:
                seen += 1
                assert type(other["image"]) is torch.Tensor
                assert other["image"].shape == (1, SIZE, SIZE)
                assert (one["image"] - other["image"]).abs().max() <= step / 2 + 1e-7
        assert seen > 15

    @pytest.mark.parametrize("dtype", ["float16", "uint8"])
    def test_volumes_too(self, tmp_path, dtype):
        table = write_volumes(tmp_path / "source")
        settings = PackSettings(16, 3, dtype, hu_range=(-1000, 500))
        pack_studies(table, tmp_path / "packed", settings)
        steps = image_preprocessing(16, 3, hu_range=(-1000, 500))
        files = StudyDataset(read_manifest(table).studies, steps)
        shards = StudyDataset(read_manifest(f"shards:{tmp_path / 'packed'}").studies, steps)
        for one, other in zip(files, shards, strict=True):
            assert other["image"].shape == (1, 16, 16, 16)
            assert (one["image"] - other["image"]).abs().max() <= {"uint8": 0.5 / 255, "float16": 2**-12}[dtype] + 1e-7
        lung = StudyDataset(shards.studies, image_preprocessing(16, 3, hu_range=(-1350, 150)))
        with pytest.raises(
            StudyError,
            match=r"hu_range must be \[-1000\.0, 500\.0\], by which the packed images were scaled, got \[-1350\.0, 150\.0\]\.$",
        ):
            lung[0]
        with pytest.raises(StudyError, match=r"must have 2 spatial dimensions \(spatial_dims\), got 3\.$"):
            StudyDataset(shards.studies, image_preprocessing(16))[0]

    def test_augmentation_draws_the_same(self, table, tmp_path):
        pack_studies(table, tmp_path / "packed", PackSettings(SIZE, dtype="float32"), columns={"label_column": LABELS})
        steps = [image_preprocessing(SIZE), image_augmentation(SIZE)]
        both = [
            StudyDataset(read_manifest(place, **options).drop_missing("image").studies, steps, seed=3)
            for place, options in ((table, {"label_column": LABELS}), (f"shards:{tmp_path / 'packed'}", {}))
        ]
        for dataset in both:
            dataset.set_epoch(2)
        assert all(one["image"].equal(other["image"]) for one, other in zip(*both, strict=True))

    def test_other_percentiles_are_refused(self, packed):
        study = LoadStudyImage()(read_manifest(f"shards:{packed}").studies[0]["image"])
        with pytest.raises(
            ValueError, match=r"upper must be 99\.5, by which the packed images were scaled, got 99\.9\.$"
        ):
            RadiographIntensityd("image", upper=99.9)({"image": study})

    def test_texts_are_labeled_once(self, table, packed, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for unit in ("report", "sentence"):
            before = load_sources(data=table, columns={"label_column": LABELS}, text_unit=unit, require_findings=True)
            with monkeypatch.context() as patched:
                patched.setattr("medvl.data.text_labels.report_states", None)  # it must not be called
                after = load_sources(data=f"shards:{packed}", text_unit=unit, require_findings=True)
            assert after.names == before.names
            assert len(after) == len(before) > 10
            for one, other in zip(before.studies, after.studies, strict=True):
                assert one.keys() == other.keys()
                for key in one.keys() - {"image", "source"}:
                    np.testing.assert_array_equal(one[key], other[key])

    def test_sources_of_every_kind(self, packed):
        manifest = load_sources(
            [f"image-label=shards:{packed}", f"text-label=shards:{packed}"], label_cache=packed.parent / "cache.npz"
        )
        kinds = Counter(study["kind"] for study in manifest.studies)
        assert set(kinds) == {"image-label", "text-label"}
        assert not any("image" in study for study in manifest.studies if study["kind"] == "text-label")
        assert {study["source"] for study in manifest.studies} == {"packed", "packed-2"}


class TestFormat:
    def test_is_that_of_webdataset(self, table, packed):
        """Read as the package webdataset does: members in a row that share what stands before the first dot are a sample."""
        manifest = read_manifest(table, label_column=LABELS)
        samples = []
        for path in sorted(packed.glob("*.tar")):
            with tarfile.open(path, mode="r|") as archive:  # as a stream
                by_key = defaultdict(dict)
                order = []
                for member in archive:
                    key, _, suffix = member.name.partition(".")
                    order.append(key)
                    by_key[key][suffix] = archive.extractfile(member).read()
            assert order == sorted(order)
            samples += by_key.values()
        assert len(samples) == len(manifest)
        for study, sample in zip(manifest.studies, samples, strict=True):
            record = json.loads(sample["json"])
            assert record["study_id"] == study["study_id"]
            assert sample.get("txt", b"").decode() == study.get("report", "")
            assert ("png" in sample) == ("image" in study)
            states = dict(zip(LABELS, study.get("label", [np.nan] * 2), strict=True))
            assert record.get("label", {}) == {name: state for name, state in states.items() if not np.isnan(state)}
            if "png" in sample:
                image = Image.open(io.BytesIO(sample["png"]))
                assert image.mode == "L"
                assert max(image.size) == SIZE

    def test_sizes_of_shards(self, packed):
        index = json.loads((packed / "index.json").read_text())
        assert [shard["studies"] for shard in index["shards"]] == [5, 5, 5, 5, 4]
        assert sum(shard["images"] for shard in index["shards"]) == index["counts"]["image"] == 21
        for entry in index["shards"] + index["files"]:
            assert os.path.getsize(packed / entry["name"]) == entry["bytes"]

    def test_labels_as_letters(self):
        label = np.array([1, 0, -1, np.nan], dtype=np.float32)
        assert encode_label(label) == "10u."
        assert encode_label(None) == ""
        assert np.frombuffer(decode_labels(["10u.", ""], 4), np.int8).tolist() == [1, 0, -1, -2, -2, -2, -2, -2]
        with pytest.raises(ValueError, match=r"^label must hold 1, 0, -1 and NaN, got 0\.5\.$"):
            encode_label(np.array([0.5]))
        with pytest.raises(ValueError, match=r"^the labels must have 4 states each\.$"):
            decode_labels(["10u"], 4)

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32"])
    @pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 5), (1, 4, 2, 3)])
    def test_images_come_back(self, dtype, shape):
        image = torch.rand(shape)
        suffix, content = encode_image(image, dtype)
        assert suffix == ("png" if dtype.startswith("uint") and len(shape) == 3 else "npy")
        step = {"uint8": 0.5 / 255, "uint16": 0.5 / 65535, "float16": 2**-12, "float32": 0}[dtype]
        assert decode_image(content).dtype == torch.float32
        assert (decode_image(content) - image).abs().max() <= step + 1e-7
        assert (decode_image(content) - image).abs().max() <= step + 1e-7

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32"])
    def test_the_rounding_of_a_resized_image_is_packed(self, dtype):
        image = torch.tensor([[[-1e-7, 1 + 2e-7, 0.5]]])
        decoded = decode_image(encode_image(image, dtype)[1])
        torch.testing.assert_close(decoded, image, rtol=0, atol=0.5 / 255 + 1e-6)

    def test_images_of_white_are_packed_whatever_their_size(self, tmp_path):
        for size in range(100, 160):  # means of 1 come out at 1.0000001 for some of them
            Image.fromarray(np.full((size, size + 7), 255, dtype=np.uint8)).save(tmp_path / f"{size}.png")
            with Image.open(tmp_path / f"{size}.png") as image:
                image.putpixel((0, 0), 0)
                image.save(tmp_path / f"{size}.png")
        rows = "".join(f"{size}.png,Clear.\n" for size in range(100, 160))
        (tmp_path / "cases.csv").write_text("image,report\n" + rows)
        summary = pack_studies(tmp_path / "cases.csv", tmp_path / "packed", PackSettings(image_size=64))
        assert summary.images == 60

    def test_what_is_no_packed_image_is_refused(self):
        with pytest.raises(ValueError, match=r"^image must be in \[0, 1\], got \[-1, 1\]\.$"):
            encode_image(torch.tensor([[[-1.0, 1.0]]]))
        with pytest.raises(ValueError, match=r"^image must be in \[0, 1\]"):
            encode_image(torch.tensor([[[float("nan"), 1.0]]]))
        with pytest.raises(
            ValueError, match=r"^image must have shape \(1, H, W\) or \(1, H, W, D\), got \(3, 2, 2\)\.$"
        ):
            encode_image(torch.zeros(3, 2, 2))
        color, objects, short = io.BytesIO(), io.BytesIO(), io.BytesIO()
        Image.new("RGB", (2, 2)).save(color, format="PNG")
        np.save(objects, np.array([None]), allow_pickle=True)
        np.save(short, np.zeros((4, 4), np.uint8))
        with pytest.raises(ValueError, match=r"must have one channel of 8 or 16 bits, got RGB\.$"):
            decode_image(color.getvalue())
        with pytest.raises(ValueError, match=r"must be of type uint8, uint16, float16, float32, got object\.$"):
            decode_image(objects.getvalue())
        with pytest.raises(ValueError, match="reshape"):
            decode_image(short.getvalue()[:-1])

    def test_places_of_images_with_odd_names(self):
        for name in ("a b.dcm", "x::1+2-0123456789abcdef::3:y.tar", "ü\n.png", ""):
            member = TarMember("/a b/s.tar", 1, 2, "0123456789abcdef", 3, name)
            assert TarMember.parse(str(member)) == member
        for path in ("/a/s.tar", "/a/s.tar::1.png", "s.tar::1+2-xyz::3:n"):
            assert TarMember.parse(path) is None


class TestOrder:
    """An epoch has every study once, in an order that depends on seed and epoch alone, from any batch on."""

    @staticmethod
    def loader(packed, workers, replicas=1, rank=0, monkeypatch=None, **options):
        studies = read_manifest(f"shards:{packed}").drop_missing("image").studies
        dataset = StudyDataset(studies, STEPS, seed=4)
        if replicas > 1:
            monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
            monkeypatch.setattr("torch.distributed.get_world_size", lambda: replicas)
            monkeypatch.setattr("torch.distributed.get_rank", lambda: rank)
        return StudyLoader(dataset, batch_size=3, shuffle=True, num_workers=workers, **options)

    @staticmethod
    def drawn(batches):
        return [list(zip(batch["study_id"], batch["row"].tolist(), strict=True)) for batch in batches]

    @pytest.mark.parametrize("workers", [0, 1, 2, 3])
    @pytest.mark.parametrize("replicas", [1, 2])
    def test_mid_epoch_resume(self, packed, workers, replicas, monkeypatch):
        studies = read_manifest(f"shards:{packed}").drop_missing("image").studies
        everything = Counter((study["study_id"], study["row"]) for study in studies)
        assert sum(everything.values()) == 21
        shares, steps = [], set()
        for rank in range(replicas):
            with monkeypatch.context() as patched:
                first, second = (self.loader(packed, workers, replicas, rank, patched) for _ in range(2))
                whole = [self.drawn(first), self.drawn(first)]
                passes = iter(second)
                begun = self.drawn(next(passes) for _ in range(2))
                state = json.loads(json.dumps(second.state_dict()))
                assert state == {"epoch": 0, "batches": 2, "studies": 21, "seed": 4}
                del passes
                resumed = self.loader(packed, workers, replicas, rank, patched)
                resumed.load_state_dict(state)
                rest = self.drawn(resumed)
                assert begun + rest == whole[0]
                assert resumed.state_dict() | {"epoch": 1, "batches": 0} == resumed.state_dict()
                assert self.drawn(resumed) == whole[1], "the next epoch is whole"
            shares.append(whole)
            steps.add(len(whole[0]))
        assert len(steps) == 1
        for epoch in (0, 1):
            got = Counter(study for whole in shares for batch in whole[epoch] for study in batch)
            assert got == everything
        assert shares[0][0] != shares[0][1]

    def test_two_processes_draw_what_one_draws(self, packed, monkeypatch):
        with monkeypatch.context() as patched:
            pairs = [self.drawn(self.loader(packed, 0, 2, rank, patched)) for rank in (0, 1)]
        studies = read_manifest(f"shards:{packed}").drop_missing("image").studies
        alone = StudyLoader(StudyDataset(studies, STEPS, seed=4), batch_size=6, shuffle=True)
        assert self.drawn(alone) == [one + other for one, other in zip(*pairs, strict=True)]

    def test_persistent_workers_resume_too(self, packed):
        loader = self.loader(packed, 2, persistent_workers=True)
        whole = [self.drawn(loader) for _ in range(2)]
        loader.load_state_dict({"epoch": 0, "batches": 3, "studies": 21, "seed": 4})
        assert self.drawn(loader) == whole[0][3:]
        assert self.drawn(loader) == whole[1]

    def test_other_studies_are_not_gone_on_with(self, packed):
        loader = self.loader(packed, 0)
        state = loader.state_dict()
        for name, value, expected in (
            ("studies", 20, r"^studies of the state must be 21, as here, got 20\.$"),
            ("seed", 5, r"^seed of the state must be 4, as here, got 5\.$"),
            (
                "batches",
                8,
                r"^batches of the state must be at least 0 and at most 7, the batches of an epoch, got 8\.$",
            ),
        ):
            with pytest.raises(ValueError, match=expected):
                loader.load_state_dict({**state, name: value})

    @pytest.mark.parametrize("total", [4, 5, 7, 8, 9, 12, 13, 16, 17, 23])
    @pytest.mark.parametrize("replicas", [1, 2, 3, 4])
    @pytest.mark.parametrize("drop_last", [False, True])
    def test_shares_of_batches(self, total, replicas, drop_last):
        shares = [
            list(DistributedBatchSampler(range(total), 2, drop_last, num_replicas=replicas, rank=rank))
            for rank in range(replicas)
        ]
        assert len({len(share) for share in shares}) == 1
        sizes = [[len(batch) for batch in step] for step in zip(*shares, strict=True)]
        assert all(max(step) - min(step) <= 1 and min(step) >= 1 for step in sizes)
        drawn = sorted(index for share in shares for batch in share for index in batch)
        if drop_last:
            assert drawn == list(range(total // (2 * replicas) * 2 * replicas))
            assert all(size == 2 for step in sizes for size in step)
        else:
            assert drawn == list(range(total))
            assert max(size for step in sizes for size in step) <= 3

    def test_fewer_studies_than_processes(self):
        with pytest.raises(ValueError, match=r"^sampler must have at least 4 indices, one for each process, got 3\.$"):
            DistributedBatchSampler(range(3), 2, num_replicas=4, rank=0)


class TestWeb:
    @pytest.fixture(autouse=True)
    def no_proxy(self, monkeypatch):
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "MEDVL_CACHE_DIR"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)

    def test_the_proxy_of_the_environment_is_used(self, packed, monkeypatch):
        with web_server(packed.parent) as (url, handler), web_server(packed.parent) as (proxy, through):
            host = proxy.removeprefix("http://")
            monkeypatch.setenv("http_proxy", f"http://me:p%40ss@{host}/")
            assert len(read_manifest(f"shards:{url}/packed")) == 24
            assert [line for line, _ in through.requests][:1] == [f"{url}/packed/index.json"]
            assert through.requests[0][1] == f"Basic {b64encode(b'me:p@ss').decode()}"
            assert not handler.requests, "all went through the proxy"
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            assert len(read_manifest(f"shards:{url}/packed")) == 24
            assert handler.requests[0] == ("/packed/index.json", None)
            monkeypatch.delenv("no_proxy")
            monkeypatch.setenv("https_proxy", host)  # CONNECT, which this proxy refuses
            monkeypatch.setattr("medvl.utils.http_ranges.time.sleep", lambda seconds: None)
            with pytest.raises(OSError, match=r"index\.json cannot be read: Tunnel connection failed: 501 .*\.$"):
                read_manifest("shards:https://host.invalid/packed")
            monkeypatch.setenv("http_proxy", "socks5://me:secret@host:1080")
            with pytest.raises(ValueError, match=r"^http_proxy must be http://HOST:PORT, got socks5://\.\.\.\.$"):
                read_manifest(f"shards:{url}/packed")

    def test_redirections_are_followed_but_not_for_ever(self, packed):
        with web_server(packed.parent) as (target, _):
            with web_server(packed.parent, redirect=target) as (url, handler):
                web = read_manifest(f"shards:{url}/packed").drop_missing("image")
                assert LoadStudyImage()(web.studies[0]["image"]).shape[0] == 1
                assert handler.requests
            for redirect, reason in {
                "": "redirects more than 5 times",
                "ftp://host": "redirects to ftp://, which is not followed",
            }.items():
                with web_server(packed.parent, redirect=redirect) as (url, _), pytest.raises(ValueError, match=reason):
                    read_manifest(f"shards:{url}/packed")

    def test_images_are_kept_on_the_disk(self, packed, tmp_path, monkeypatch, caplog):
        monkeypatch.setenv("MEDVL_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setattr(range_cache, "_warned", False)
        with web_server(packed.parent) as (url, handler):
            place = read_manifest(f"shards:{url}/packed").drop_missing("image").studies[0]["image"]
            first = LoadStudyImage()(place)
            asked = len(handler.requests)
            (file,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
            assert LoadStudyImage()(place).equal(first)
            assert len(handler.requests) == asked, "it was not asked for again"
            file.write_bytes(bytes(file.stat().st_size))
            assert LoadStudyImage()(place).equal(first)
            assert len(handler.requests) == asked + 1, "a damaged copy is read again"
            shutil.rmtree(tmp_path / "cache")
            (tmp_path / "cache").write_text("no folder")
            for _ in range(2):
                assert LoadStudyImage()(place).equal(first)
        assert [record.getMessage() for record in caplog.records].count(
            f"Nothing more is kept in {tmp_path / 'cache'}: Not a directory."
        ) == 1

    def test_items_are_those_of_the_folder(self, packed):
        with web_server(packed.parent) as (url, handler):
            web = read_manifest(f"shards:{url}/packed")
            assert web.name == "packed"
            dataset = StudyDataset(web.studies, image_preprocessing(SIZE, allow_missing_keys=True))
            local = StudyDataset(read_manifest(f"shards:{packed}").studies, dataset.steps)
            for one, other in zip(dataset, local, strict=True):
                assert plain(one) == plain(other)
                assert ("image" not in one) or one["image"].equal(other["image"])
            assert len(handler.connections) == 1, "a connection is kept"
            workers = StudyLoader(StudyDataset(web.drop_missing("image").studies, STEPS), 4, num_workers=2)
            assert sum(len(batch["study_id"]) for batch in workers) == 21
            assert web.fingerprint() == read_manifest(f"shards:{packed}").fingerprint()

    def test_a_busy_server_is_asked_again(self, packed, monkeypatch):
        monkeypatch.setattr("medvl.utils.http_ranges.time.sleep", lambda seconds: None)
        with web_server(packed.parent, failures=3) as (url, handler):
            assert len(read_manifest(f"shards:{url}/packed")) == 24
            handler.failures = 4
            with pytest.raises(
                OSError, match=r"index\.json cannot be read: the server answers 503 Service Unavailable\.$"
            ):
                read_manifest(f"shards:{url}/packed")
        with pytest.raises(OSError, match=r"index\.json cannot be read: .*refused"):
            read_manifest(f"shards:{url}/packed")

    def test_what_a_server_lacks_is_said(self, packed, tmp_path):
        shutil.copytree(packed, tmp_path / "packed")
        with web_server(tmp_path, ranges=False) as (url, _):
            studies = read_manifest(f"shards:{url}/packed").studies
            with pytest.raises(ValueError, match=r"its server does not answer range requests\. Copy the folder"):
                LoadStudyImage()(studies[0]["image"])
        with web_server(tmp_path) as (url, _):
            with pytest.raises(
                OSError, match=r"/nowhere/index\.json cannot be read: the server answers 404 Not Found\.$"
            ):
                read_manifest(f"shards:{url}/nowhere")
            studies = read_manifest(f"shards:{url}/packed").studies
            os.truncate(tmp_path / "packed" / "shard-000000.tar", 1000)
            with pytest.raises(
                ValueError, match=r"shard-000000\.tar is cut off: it has 488 of the \d+ bytes from byte 512 on\.$"
            ):
                LoadStudyImage()(studies[0]["image"])


def test_a_folder_of_another_width_is_damaged(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "packed")
    with pytest.raises(ValueError, match=r"studies\.jsonl, line 1 is damaged: the labels must have 3 states each\.$"):
        read_studies(str(tmp_path / "packed"), 3)
    lines = (tmp_path / "packed/studies.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "packed/studies.jsonl").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(ValueError, match=r"studies\.jsonl is damaged: its content is not what was packed;"):
        PackedLocation.parse(f"shards:{tmp_path / 'packed'}").read()
    (tmp_path / "packed/studies.jsonl").write_bytes(lines[0] + lines[1][:50])
    with pytest.raises(ValueError, match=r"studies\.jsonl, line 2 is damaged: "):
        read_manifest(f"shards:{tmp_path / 'packed'}")


class TestHostileFolders:
    """Folders of strangers, whose checksums fit: whoever changes a folder can write new ones."""

    @pytest.fixture
    def folder(self, packed, tmp_path):
        return shutil.copytree(packed, tmp_path / "packed")

    @staticmethod
    def change(folder, **columns):
        """Change columns of the first shard, and every checksum with them."""
        lines = [json.loads(line) for line in (folder / "studies.jsonl").open()]
        lines[0] |= columns
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        (folder / "studies.jsonl").write_bytes(content)
        index = json.loads((folder / "index.json").read_text())
        index["files"][0]["sha256"] = content_sha256(content)
        (folder / "index.json").write_text(json.dumps(index))
        (folder / "SHA256SUMS").unlink()
        return json.loads(json.dumps(lines[0]))

    def test_damage_of_the_studies_or_the_index_is_noticed_at_once(self, folder):
        whole = (folder / "studies.jsonl").read_bytes()
        assert b'"patient_id"' in whole
        (folder / "studies.jsonl").write_bytes(whole.replace(b'"p0"', b'"p1"', 1))
        with pytest.raises(
            ValueError, match=r"studies\.jsonl is damaged: its content is not what was packed; medvl pack"
        ):
            read_manifest(f"shards:{folder}")
        (folder / "studies.jsonl").write_bytes(whole)
        index = (folder / "index.json").read_text()
        (folder / "index.json").write_text(index.replace("Fracture", "fracture", 1))
        with pytest.raises(ValueError, match=r"index\.json is damaged: its content is not what was saved\."):
            read_manifest(f"shards:{folder}")
        with web_server(folder.parent) as (url, _), pytest.raises(ValueError, match=r"index\.json is damaged"):
            read_manifest(f"shards:{url}/packed")

    @pytest.mark.parametrize(
        "columns",
        [
            {"first": {"999999": 0}}, {"first": {"x": 0}}, {"first": {"1": "y"}}, {"first": [1]}, {"offset": [2**70] * 5},
            {"size": [1.5] * 5}, {"number": "01234"}, {"digest": ["zz"] * 5}, {"shard": 7}, {"label": [3] * 5},
            {"report": [None] * 5}, {"shard": "../shard-000000.tar"}, {"shard": "/etc/passwd"},
        ],
    )  # fmt: skip
    def test_columns_of_another_kind_are_named(self, folder, columns):
        self.change(folder, **columns)
        with pytest.raises(ValueError, match=r"studies\.jsonl(, line 1)? is damaged: "):
            read_manifest(f"shards:{folder}")

    @pytest.mark.parametrize("size", [10**6, 2**40, 2**62])
    def test_no_memory_is_reserved_for_what_a_shard_does_not_have(self, folder, size):
        self.change(folder, size=[size] * 5)
        study = read_manifest(f"shards:{folder}").studies[0]
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=rf"shard-000000\.tar is cut off: it has \d+ of the {size} bytes"):
                LoadStudyImage()(study["image"])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 20e6  # with what is imported then

    def test_a_pipe_in_place_of_a_shard_is_not_waited_on(self, folder):
        study = read_manifest(f"shards:{folder}").studies[0]
        (folder / "shard-000000.tar").unlink()
        os.mkfifo(folder / "shard-000000.tar")
        with pytest.raises(ValueError, match=r"shard-000000\.tar must be a regular file, got a named pipe"):
            LoadStudyImage()(study["image"])

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"skipped": [["s1", "image"]]}, "its list of what was skipped is not a list of studies"),
            ({"skipped": [1]}, "its list of what was skipped is not a list of studies"),
            ({"names": [1, 2]}, "its names are not texts"),
            ({"counts": {"rows": "many"}}, "its counts are not numbers"),
            ({"settings": {}}, "its settings have no image_size"),
        ],
    )
    def test_an_index_of_another_kind_is_named(self, folder, change, said):
        index = json.loads((folder / "index.json").read_text())
        (folder / "index.json").write_text(json.dumps({**index, **change}))
        (folder / "SHA256SUMS").unlink()
        with pytest.raises(ValueError, match=rf"index\.json is damaged: {said}\.$"):
            read_manifest(f"shards:{folder}")

    @pytest.mark.parametrize("url", ["http://[bad", "http://host:x/p", "http://127.0.0.1:99999/p", "http://h:0/"])
    def test_what_is_no_address_is_said(self, url):
        with pytest.raises(ValueError, match=r"index\.json is not the address of a file: .*\.$"):
            read_manifest(f"shards:{url}")

    def test_a_server_that_sends_more_is_not_read_to_the_end(self, packed, monkeypatch):
        monkeypatch.setenv("MEDVL_MAX_TEXT_BYTES", "100")
        with (
            web_server(packed.parent) as (url, _),
            pytest.raises(ValueError, match=r"index\.json must have at most 100 bytes, got more\.$"),
        ):
            read_manifest(f"shards:{url}/packed")

"""Handlers on a real SupervisedTrainer over a network small enough to train in milliseconds."""

from __future__ import annotations

import csv
import json
import os
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import nn

from medvl.data import StudyDataset, StudyLoader
from medvl.handlers import (
    EpochSeed,
    FiniteLoss,
    GradientClipping,
    MetricsLog,
    ProgressBar,
    RunCheckpoint,
    ScoreTable,
    SkippedLog,
    read_metrics,
)
from medvl.handlers.checkpoint_file import load_checkpoint, save_checkpoint
from medvl.utils.errors import StudyError


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, image):
        return {"value": self.linear(self.dropout(image)), "logit_scale": torch.tensor(3.0)}


class Loss(nn.Module):
    def forward(self, pred, batch):
        value = (pred["value"][:, 0] - batch["target"]).square().mean()
        self.terms = {"square": value.detach()}
        return value


def prepare(batch, device=None, non_blocking=False, **kwargs):
    return batch["image"], batch, (), {}


def trainer(handlers, epochs=3, studies=10, bad=None, rate=0.05):
    """A trainer with the handlers that ``handlers(trainer, loader, optimizer)`` gives."""
    torch.manual_seed(0)
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(1)
    rows = [
        {
            "study_id": f"s{i}",
            "image": torch.randn(4, generator=generator),
            "target": float("inf") if i == bad else i / 5,
        }
        for i in range(studies)
    ]
    loader = StudyLoader(StudyDataset(rows), batch_size=4, shuffle=True)
    engine = SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=Loss(),
        prepare_batch=prepare,
        decollate=False,
    )
    for handler in handlers(engine, loader, optimizer):
        handler.attach(engine)
    return engine


def weights(engine):
    return torch.cat([p.detach().flatten() for p in engine.network.parameters()])


def checkpoint(folder, engine, optimizer, keep=2):
    return RunCheckpoint(folder, {"network": engine.network, "optimizer": optimizer}, keep=keep)


class TestRunCheckpoint:
    def test_resumed_equals_unbroken(self, tmp_path):
        def handlers(folder):
            return lambda e, loader, opt: [EpochSeed(loader, 7), checkpoint(folder, e, opt)]

        whole = trainer(handlers(tmp_path / "a"), epochs=5)
        whole.run()
        trainer(handlers(tmp_path / "b"), epochs=3).run()
        saved = []

        def resuming(engine, loader, optimizer):
            saved.append(checkpoint(tmp_path / "b", engine, optimizer))
            return [EpochSeed(loader, 7), saved[0]]

        second = trainer(resuming, epochs=5)
        assert saved[0].restore().name == "epoch-0003.pt"
        second.run()
        assert second.state.epoch == 5
        assert torch.equal(weights(whole), weights(second))
        assert [path.name for path in sorted((tmp_path / "b").iterdir())] == ["epoch-0004.pt", "epoch-0005.pt"]

    def test_resumed_within_an_epoch_equals_unbroken(self, tmp_path):
        """Dropout, the order and the log go on after the second of three steps."""

        def run(folder, until, resume=False):
            saved = []

            def handlers(engine, loader, optimizer):
                seeds, log = EpochSeed(loader, 7), MetricsLog(tmp_path / f"{folder}.jsonl")
                objects = {"network": engine.network, "optimizer": optimizer}
                saved.append(RunCheckpoint(tmp_path / folder, objects, interval=2))
                saved[0].parts = {"seeds": seeds, "log": log}
                return [seeds, log, *saved]

            engine = trainer(handlers, epochs=3)
            if resume:
                assert saved[0].restore().name == "epoch-0001-step-000002.pt"
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=until), lambda: engine.terminate())
            engine.run()
            lines = [{**line, "seconds": 0} for line in read_metrics(tmp_path / f"{folder}.jsonl")]
            return weights(engine), lines

        whole, lines = run("whole", 99)
        run("broken", 5)
        assert sorted(path.name for path in (tmp_path / "broken").iterdir()) == [
            "epoch-0001-step-000002.pt",
            "epoch-0001.pt",
        ]
        again, lines_again = run("broken", 99, resume=True)
        assert torch.equal(whole, again)
        assert lines_again == lines

    def test_what_was_skipped_within_an_epoch_is_kept(self, tmp_path):
        errors = {"a": StudyError("a", "image", "is missing")}
        state = SkippedLog(tmp_path / "no.jsonl", loaders=[SimpleNamespace(skipped=errors)]).state_dict()
        log = SkippedLog(tmp_path / "skipped.jsonl", loaders=[SimpleNamespace(skipped={})])
        log.load_state_dicts([state, {"skipped": []}, state])
        log.start(SimpleNamespace(state=SimpleNamespace(iteration=2)))
        lines = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
        assert lines == [{"study_id": "a", "key": "image", "reason": "is missing"}]

    def test_sums_of_other_processes_are_their_mean(self, tmp_path):
        log = MetricsLog(tmp_path / "metrics.jsonl")
        state = {"sums": {"loss": torch.tensor(2.0)}, "steps": 3, "seconds": 1.0}
        log.load_state_dicts([state, {**state, "sums": {"loss": torch.tensor(4.0)}}])
        log.start_epoch(None)
        assert log.state_dict()["sums"] == {"loss": torch.tensor(3.0)}
        assert log.state_dict()["steps"] == 3
        log.start_epoch(None)
        assert log.state_dict()["sums"] == {}

    def test_a_run_with_other_epochs_is_refused(self, tmp_path):
        trainer(lambda e, loader, opt: [checkpoint(tmp_path, e, opt)], epochs=1).run()
        saved = []
        trainer(lambda e, loader, opt: saved.append(checkpoint(tmp_path, e, opt)) or saved, epochs=1, studies=5)
        with pytest.raises(ValueError, match=r"epoch-0001\.pt must have epochs of 2 steps, as this run, got 3\."):
            saved[0].restore()

    def test_the_scaler_of_gradients_is_restored(self, tmp_path):
        def run(scale, resume):
            saved = []
            engine = trainer(lambda e, loader, opt: saved.append(checkpoint(tmp_path, e, opt)) or saved, epochs=2)
            scaler = torch.amp.GradScaler("cpu", init_scale=scale)
            engine.add_event_handler(Events.STARTED, lambda: setattr(engine, "scaler", scaler))
            if resume:
                saved[0].restore()
                saved[0]._restore_scaler(SimpleNamespace(scaler=scaler))
                return scaler
            scaler.scale(torch.ones(1))
            engine.run()
            return scaler

        run(512.0, resume=False)
        assert run(8.0, resume=True).get_scale() == 512.0

    def test_an_interval_within_accumulated_gradients(self, tmp_path):
        """MONAI's trainer attaches its handlers before it knows ``accumulation_steps``."""
        network, trained = nn.Linear(3, 1), []
        engine = SupervisedTrainer(
            device="cpu",
            max_epochs=1,
            train_data_loader=[(torch.ones(2, 3), torch.zeros(2, 1))] * 8,
            network=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
            loss_function=lambda pred, target: pred.mean(),
            prepare_batch=lambda batch, *args, **kwargs: batch,
            accumulation_steps=3,
            decollate=False,
            train_handlers=[RunCheckpoint(tmp_path, {"network": network}, interval=4)],
        )
        engine.add_event_handler(Events.ITERATION_COMPLETED, trained.append)
        with pytest.raises(ValueError, match=r"interval must be a multiple of accumulation_steps=3, got 4\."):
            engine.run()
        assert not trained
        with pytest.raises(ValueError, match=r"interval must be at least 1, got 0\."):
            RunCheckpoint(tmp_path, {}, interval=0)

    def test_without_epoch_seed_they_differ(self, tmp_path):
        runs = [trainer(lambda e, loader, opt: []) for _ in range(2)]
        for seed, run in enumerate(runs):
            torch.manual_seed(seed)
            run.run()
        assert not torch.equal(weights(runs[0]), weights(runs[1])), "dropout follows the global state"

    def test_a_file_cut_short_is_passed_over(self, tmp_path):
        saved = []

        def handlers(engine, loader, optimizer):
            saved.append(checkpoint(tmp_path, engine, optimizer, keep=3))
            return saved

        trainer(handlers).run()
        newest = tmp_path / "epoch-0003.pt"
        newest.write_bytes(newest.read_bytes()[:200])
        (tmp_path / "epoch-0004.partial").write_bytes(b"half")
        assert saved[0].newest().name == "epoch-0002.pt"
        (tmp_path / "epoch-0002.pt").write_bytes(b"")
        assert saved[0].restore().name == "epoch-0001.pt"

    @pytest.mark.parametrize("kind", ["pipe", "list"])
    def test_what_is_no_checkpoint_is_passed_over(self, tmp_path, kind):
        saved = []
        trainer(lambda e, loader, opt: saved.append(checkpoint(tmp_path, e, opt, keep=3)) or saved).run()
        newest = tmp_path / "epoch-0003.pt"
        if kind == "list":
            save_checkpoint([1, 2], newest)
        else:
            newest.unlink()
            os.mkfifo(newest)
            with pytest.raises(ValueError, match=r"epoch-0003\.pt must be a regular file, got a named pipe\.$"):
                save_checkpoint({}, newest)
        assert saved[0].restore().name == "epoch-0002.pt"

    @pytest.mark.parametrize(
        ("name", "state"),
        [
            ("network", {}),
            ("network", 7),
            ("optimizer", {}),
            ("optimizer", []),
            ("trainer", 7),
            ("trainer", {"epoch": "x"}),
        ],
    )
    def test_states_of_something_else_are_named(self, tmp_path, name, state):
        saved = []
        trainer(lambda e, loader, opt: saved.append(checkpoint(tmp_path, e, opt)) or saved).run()
        path = tmp_path / "epoch-0003.pt"
        save_checkpoint({**load_checkpoint(path), name: state}, path)
        with pytest.raises(ValueError, match=rf"3\.pt cannot be restored: its {name} is not one of this run \(.*\)\.$"):
            saved[0].restore()

    def test_nothing_there(self, tmp_path):
        assert RunCheckpoint(tmp_path / "none", {}).restore() is None
        with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
            RunCheckpoint(tmp_path, {}, keep=0)

    def test_other_objects(self, tmp_path):
        trainer(lambda e, loader, opt: [checkpoint(tmp_path, e, opt)], epochs=1).run()
        with pytest.raises(ValueError, match=r"epoch-0001\.pt must hold network, got network, optimizer, trainer\."):
            RunCheckpoint(tmp_path, {"network": nn.Linear(1, 1)}).restore()


class TestMetricsLog:
    def test_a_line_an_epoch(self, tmp_path):
        engine = trainer(lambda e, loader, opt: [MetricsLog(tmp_path / "m" / "metrics.jsonl")])
        engine.run()
        lines = read_metrics(tmp_path / "m" / "metrics.jsonl")
        assert [line["epoch"] for line in lines] == [1, 2, 3]
        assert [line["iteration"] for line in lines] == [3, 6, 9]
        assert set(lines[0]) == {"epoch", "iteration", "loss", "square", "lr", "logit_scale", "seconds"}
        assert lines[0]["loss"] == pytest.approx(lines[0]["square"])
        assert lines[0]["logit_scale"] == 3
        assert lines[-1]["loss"] < lines[0]["loss"]

    def test_the_learning_rate_is_the_greatest_of_the_groups_at_the_end_of_the_epoch(self, tmp_path):
        class Halve:
            def __init__(self, optimizer):
                self.optimizer = optimizer
                optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.001})

            def attach(self, engine):
                def halve(e):
                    for group in self.optimizer.param_groups:
                        group["lr"] /= 2

                engine.add_event_handler(Events.ITERATION_COMPLETED, halve)

        trainer(lambda e, loader, opt: [Halve(opt), MetricsLog(tmp_path / "m.jsonl")], epochs=2, rate=0.08).run()
        rates = [line["lr"] for line in read_metrics(tmp_path / "m.jsonl")]
        assert rates == pytest.approx([0.08 / 2**3, 0.08 / 2**6])

    def test_values_are_means_over_the_processes(self, tmp_path, monkeypatch):
        import medvl.handlers.metrics_log as module

        monkeypatch.setattr(module, "is_distributed", lambda: True)
        monkeypatch.setattr(module, "get_world_size", lambda: 4)
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda value: value.add_(9.0))
        assert module._mean_over_processes(torch.tensor(3.0)) == 3.0

    def test_loss_is_the_mean_over_steps(self, tmp_path):
        losses = []

        class Collect:
            def attach(self, engine):
                engine.add_event_handler(
                    Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output["loss"].item())
                )

        trainer(lambda e, loader, opt: [MetricsLog(tmp_path / "m.jsonl"), Collect()], epochs=1).run()
        assert read_metrics(tmp_path / "m.jsonl")[0]["loss"] == pytest.approx(sum(losses) / 3, rel=1e-6)

    def test_a_resumed_run_repeats_no_line(self, tmp_path):
        path = tmp_path / "m.jsonl"
        path.write_text("".join(json.dumps({"epoch": e}) + "\n" for e in (1, 2, 3)))
        assert [line["epoch"] for line in read_metrics(path)] == [1, 2, 3]
        engine = trainer(lambda e, loader, opt: [MetricsLog(path)], epochs=4)
        engine.state.epoch, engine.state.iteration = 2, 6
        engine.run()
        assert [line["epoch"] for line in read_metrics(path)] == [1, 2, 3, 4]
        assert "loss" in read_metrics(path)[2]
        assert read_metrics(tmp_path / "none.jsonl") == []

    @pytest.mark.parametrize("damaged", [
        b'{"epoch": 2, "lo', b"null", b"[1]", b"\x00" * 20, b"{}", b'"text"', b"\xff\xfe", b"{'epoch': 2}", b"1", b"[" * 9999,
        b'{"epoch": "x"}', b'{"epoch": true}', b'{"epoch": 2.5}', b'{"epoch": null}', b'{"epoch": 2, "loss": "low"}',
        b'{"epoch": 2, "loss": [1]}', b'{"epoch": 2, "val_auroc": {}}', b'{"epoch": 2, "loss": 1e999}',
        b'{"epoch": 2, "seconds": true}', b'{"epoch": 2, "loss": ' + b"9" * 400 + b"}",
    ])  # fmt: skip
    def test_a_damaged_line_is_named_and_nothing_is_cut(self, tmp_path, damaged):
        path = tmp_path / "m.jsonl"
        before = b'{"epoch": 1}\n' + damaged + b'\n{"epoch": 3}\n'
        path.write_bytes(before)
        with pytest.raises(ValueError, match=r"m\.jsonl, line 2 is damaged; correct or remove it to go on\.$"):
            read_metrics(path)
        engine = trainer(lambda e, loader, opt: [MetricsLog(path)], epochs=4)
        with pytest.raises(ValueError, match="line 2 is damaged"):
            engine.run()
        assert path.read_bytes() == before

    def test_a_line_is_written_whole_or_not_at_all(self, tmp_path, monkeypatch):
        path = tmp_path / "m.jsonl"
        trainer(lambda e, loader, opt: [MetricsLog(path)], epochs=1).run()
        before = path.read_bytes()
        log = MetricsLog(path)
        engine = trainer(lambda e, loader, opt: [log], epochs=2)
        engine.state.epoch, engine.state.iteration = 1, 3

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("medvl.utils.io.os.fsync", full)
        monkeypatch.setattr(log, "drop_later_lines", lambda engine: None)
        with pytest.raises(OSError, match="No space left"):
            engine.run()
        assert path.read_bytes() == before
        assert sorted(file.name for file in tmp_path.iterdir()) == ["SHA256SUMS", "m.jsonl"]


class TestFiniteLoss:
    def test_names_the_studies_before_the_weights_are_spoilt(self, tmp_path):
        engine = trainer(lambda e, loader, opt: [FiniteLoss(max_ids=2)], bad=4)
        with pytest.raises(
            ValueError, match=r"the loss is (inf|nan) in epoch 1, iteration \d, on the studies s\d, s\d and 2 more\."
        ):
            engine.run()
        assert torch.isfinite(weights(engine)).all()

    @pytest.mark.parametrize("batch", [{"image": torch.ones(2, 3)}, (torch.ones(2, 3), torch.ones(2, 1))])
    def test_batches_of_somebody_else_without_ids(self, batch):
        network = nn.Linear(3, 1)
        engine = SupervisedTrainer(
            device="cpu",
            max_epochs=1,
            train_data_loader=[batch],
            network=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
            loss_function=lambda pred, target: pred.mean() * float("nan"),
            prepare_batch=lambda batch, *args, **kwargs: (torch.ones(2, 3), torch.ones(2, 1)),
        )
        FiniteLoss().attach(engine)
        with pytest.raises(ValueError, match=r"^the loss is nan in epoch 1, iteration 1\.$"):
            engine.run()


def test_logs_of_a_trainer_that_decollates(tmp_path):
    network = nn.Linear(3, 1)
    engine = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[{"image": torch.ones(2, 3), "label": torch.ones(2, 1)}] * 2,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        loss_function=nn.MSELoss(),
    )
    MetricsLog(tmp_path / "metrics.jsonl").attach(engine)
    ProgressBar(enabled=False).attach(engine)
    engine.run()
    with torch.no_grad():
        loss = nn.MSELoss()(network(torch.ones(2, 3)), torch.ones(2, 1))
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["loss"] == pytest.approx(float(loss))


class TestGradientClipping:
    def test_norm_is_bounded(self):
        norms = []

        class Collect:
            def attach(self, engine):
                from monai.engines.utils import IterationEvents

                def collect(e):
                    norms.append(torch.cat([p.grad.flatten() for p in e.network.parameters()]).norm().item())

                engine.add_event_handler(IterationEvents.MODEL_COMPLETED, collect)

        trainer(lambda e, loader, opt: [GradientClipping(0.01), Collect()], epochs=1).run()
        assert max(norms) <= 0.01 * (1 + 1e-5)
        with pytest.raises(ValueError, match="max_norm must be above 0, got 0"):
            GradientClipping(0)

    @pytest.mark.parametrize(("gradient", "expected"), [(0.3, 0.3), (6.0, 2.0)])
    def test_scaled_gradients_are_clipped_by_their_own_norm(self, gradient, expected):
        network = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(network.weight)
        optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        engine = SimpleNamespace(
            amp=True,
            scaler=scaler,
            optimizer=optimizer,
            network=network,
            state=SimpleNamespace(iteration=1, epoch_length=1),
        )
        scaler.scale(gradient * network(torch.ones(1, 1)).sum()).backward()
        GradientClipping(2.0)(engine)
        scaler.step(optimizer)
        assert -network.weight.item() == pytest.approx(expected, rel=1e-5)

    def test_accumulated_gradients_are_clipped_once_before_the_step(self):
        norms = []

        def steps(accumulation, handlers):
            network = nn.Linear(3, 1)
            nn.init.ones_(network.weight)
            engine = SupervisedTrainer(
                device="cpu",
                max_epochs=1,
                train_data_loader=[(torch.full((2, 3), value), torch.zeros(2, 1)) for value in (1.0, -1.0, 2.0)],
                network=network,
                optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
                loss_function=lambda pred, target: pred.mean(),
                prepare_batch=lambda batch, *args, **kwargs: batch,
                accumulation_steps=accumulation,
                decollate=False,
            )
            for handler in handlers:
                handler.attach(engine)
            engine.add_event_handler(
                IterationEvents.MODEL_COMPLETED, lambda e: norms.append(round(e.network.weight.grad.norm().item(), 4))
            )
            engine.run()

        steps(2, [])
        plain, norms[:] = list(norms), []
        steps(2, [GradientClipping(0.5)])
        assert plain == [0.866, 0.0, 1.7321]
        assert norms[:2] == [0.866, 0.0], "left alone until their sum is whole, which is below the limit"
        assert norms[2] < 0.5, "the last step of an epoch has but one iteration's"

    def test_a_gradient_that_is_no_number_stops_the_run_before_the_step(self):
        class Spoil:
            def attach(self, engine):
                from monai.engines.utils import IterationEvents

                def spoil(e):
                    if e.state.iteration == 2:
                        e.network.linear.bias.grad.fill_(float("nan"))

                engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, spoil)

        engine = trainer(lambda e, loader, opt: [Spoil(), GradientClipping()])
        with pytest.raises(
            ValueError, match=r"the norm of the gradient is nan in epoch 1, iteration 2, on the studies s"
        ):
            engine.run()
        assert torch.isfinite(weights(engine)).all()


class TestScoreTable:
    def test_a_row_a_study(self, tmp_path):
        batches = [
            {"study_id": ["a", "b"], "scores": torch.tensor([[0.5, 0.25], [1.0, 0.0]])},
            {"study_id": ["c"], "scores": torch.tensor([[0.125, 1.0]])},
        ]
        engine = Engine(lambda engine, batch: {"pred": batch["scores"], "label": batch})
        ScoreTable(tmp_path / "out" / "scores.csv", ["Edema", "Mass, left"], digits=3).attach(engine)
        for _ in range(2):  # a second run begins anew
            engine.run(batches)
        rows = list(csv.reader((tmp_path / "out" / "scores.csv").open()))
        assert rows == [
            ["study_id", "Edema", "Mass, left"],
            ["a", "0.500", "0.250"],
            ["b", "1.000", "0.000"],
            ["c", "0.125", "1.000"],
        ]

    def test_scores_of_another_shape(self, tmp_path):
        engine = Engine(lambda engine, batch: {"pred": torch.zeros(2, 3), "label": batch})
        ScoreTable(tmp_path / "scores.csv", ["Edema"]).attach(engine)
        with pytest.raises(ValueError, match=r"scores must have shape \(2, 1\), studies and names, got \(2, 3\)"):
            engine.run([{"study_id": ["a", "b"]}])
        assert not (tmp_path / "scores.csv").exists()


class TestSkippedLog:
    def test_every_skipped_study_is_written(self, tmp_path):
        def handlers(engine, loader, optimizer):
            loader.skipped["b"] = StudyError("b", "image", "gone")
            return [SkippedLog(tmp_path / "skipped.jsonl", [StudyError("a", "report", "empty")], [loader])]

        trainer(handlers, epochs=1).run()
        lines = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
        assert lines == [
            {"study_id": "a", "key": "report", "reason": "empty"},
            {"study_id": "b", "key": "image", "reason": "gone"},
        ]

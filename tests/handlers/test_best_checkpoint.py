"""The best epoch and early stopping on a real trainer, killed and resumed."""

from __future__ import annotations

import math

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import nn

from medvl.handlers import BestCheckpoint, RunCheckpoint

LOSSES = [5.0, 3.0, float("nan"), 4.0, 2.0, 2.5, 2.2, 2.1, 1.0]


def run(folder, epochs, metric="loss", losses=LOSSES, resume=False, **options):
    """A trainer whose validation gives ``losses``, one an epoch: (trainer, its best checkpoint, its weight by epoch)."""
    torch.manual_seed(0)
    network = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    evaluator = Engine(lambda engine, batch: None)
    engine = SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=[{"image": torch.ones(1, 1), "label": torch.zeros(1, 1)}],
        network=network,
        optimizer=optimizer,
        loss_function=nn.MSELoss(),
        decollate=False,
    )
    weights = {}

    def validate(engine):
        weights[engine.state.epoch] = network.weight.item()
        if losses[engine.state.epoch - 1] is not None:  # an epoch without validation leaves the old metrics behind
            evaluator.state.epoch = engine.state.epoch
            evaluator.state.metrics = {metric: losses[engine.state.epoch - 1]}

    best = BestCheckpoint(folder, network, evaluator, metric, **options)
    checkpoint = RunCheckpoint(folder, {"network": network, "optimizer": optimizer, "best": best})
    engine.add_event_handler(Events.EPOCH_COMPLETED, validate)
    best.attach(engine)
    checkpoint.attach(engine)
    if resume:
        checkpoint.restore()
        engine.state.max_epochs = epochs
    if engine.state.epoch < epochs and not best.should_stop(engine.state.epoch):
        engine.run()
    return engine, best, weights


def test_the_lowest_loss_wins_and_its_weights_come_back(tmp_path):
    engine, best, weights = run(tmp_path, 8)
    assert (best.epoch, best.value) == (5, 2.0)
    assert engine.network.weight.item() != weights[5]
    assert best.restore_best() == 5
    assert engine.network.weight.item() == weights[5]
    assert sorted(path.name for path in tmp_path.glob("best*")) == ["best-0002.pt", "best-0005.pt"]


def test_a_metric_other_than_a_loss_is_better_the_higher(tmp_path):
    _, best, _ = run(tmp_path, 8, metric="auroc")
    assert (best.epoch, best.value) == (1, 5.0)
    _, best, _ = run(tmp_path, 8, metric="auroc", lower_is_better=True)
    assert best.epoch == 5
    _, best, _ = run(tmp_path, 8, metric="median_rank")
    assert best.epoch == 5


@pytest.mark.parametrize(("patience", "stopped"), [(1, 3), (2, 4), (3, 8), (4, 9)])
def test_early_stop(tmp_path, patience, stopped):
    engine, _, _ = run(tmp_path, 9, patience=patience)
    assert engine.state.epoch == stopped
    assert (tmp_path / f"epoch-{stopped:04d}.pt").exists(), "the epoch that stops the run is checkpointed too"


@pytest.mark.parametrize("killed_after", range(1, 8))
def test_killed_and_resumed_stops_and_keeps_as_an_unbroken_run(tmp_path, killed_after):
    whole, best, _ = run(tmp_path / "whole", 9, patience=3)
    best.restore_best()
    run(tmp_path / "broken", killed_after, patience=3)
    again, resumed, _ = run(tmp_path / "broken", 9, patience=3, resume=True)
    assert again.state.epoch == whole.state.epoch == 8
    assert resumed.restore_best() == best.epoch == 5
    assert torch.equal(again.network.weight, whole.network.weight)


def test_killed_between_the_best_weights_and_the_checkpoint(tmp_path):
    run(tmp_path, 5)
    (tmp_path / "epoch-0005.pt").unlink()  # what a kill at that moment leaves: best-0005.pt, and the state of epoch 4
    _, best, _ = run(tmp_path, 4, resume=True)
    assert best.restore_best() == 2


def test_resuming_a_run_that_had_stopped_does_nothing(tmp_path):
    run(tmp_path, 9, patience=2)
    engine, _, weights = run(tmp_path, 9, patience=2, resume=True)
    assert engine.state.epoch == 4
    assert not weights


def test_all_nan_leaves_the_weights_as_they_are(tmp_path):
    engine, best, weights = run(tmp_path, 3, losses=[math.nan] * 3)
    assert best.restore_best() == 0
    assert engine.network.weight.item() == weights[3]


def test_epochs_without_validation_do_not_count_as_better(tmp_path):
    _, best, _ = run(tmp_path, 6, losses=[None, 3.0, None, 2.0, None, 2.5])
    assert (best.epoch, best.value) == (4, 2.0)


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="patience must be at least 1, got 0"):
        run(tmp_path, 1, patience=0)
    network, evaluator = nn.Linear(1, 1), Engine(lambda engine, batch: None)
    best = BestCheckpoint(tmp_path, network, evaluator, "auroc")
    with pytest.raises(ValueError, match="metric 'auroc', but validation gave none"):
        best(evaluator)
    evaluator.state.metrics = {"loss": 1.0}
    with pytest.raises(ValueError, match="'auroc', but validation gave 'loss'"):
        best(evaluator)

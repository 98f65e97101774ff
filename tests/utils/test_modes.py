"""Evaluation mode for the length of a block."""

from __future__ import annotations

import pytest
from torch import nn

from medvl.utils.modes import eval_mode


def modes(network):
    return [part.training for part in network.modules()]


def test_every_part_gets_its_own_mode_back():
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2)), nn.Linear(2, 2))
    network[1].eval()
    before = modes(network)
    assert before == [True, True, False, False, True]
    with eval_mode(network):
        assert modes(network) == [False] * 5
    assert modes(network) == before


def test_modes_come_back_after_an_error():
    network = nn.Sequential(nn.Dropout())
    with pytest.raises(RuntimeError, match=r"^stop$"), eval_mode(network):
        raise RuntimeError("stop")
    assert modes(network) == [True, True]


def test_a_part_in_training_mode_inside_a_network_in_evaluation_mode():
    network = nn.Sequential(nn.Dropout()).eval()
    network[0].train()
    with eval_mode(network):
        assert modes(network) == [False, False]
    assert modes(network) == [False, True]


def test_what_is_not_a_module_is_left_alone():
    with eval_mode(len):
        pass

"""The learning rate's schedule."""

from __future__ import annotations

import pytest
import torch

from medvl.engines import warmup_cosine


@pytest.mark.parametrize("warmup", [2, -0.1])
def test_the_warm_up_is_a_share(warmup):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ValueError, match=rf"warmup_fraction must be between 0 and 1, got {warmup}"):
        warmup_cosine(optimizer, 10, warmup)

"""One process, environment variables, and two and three processes with gloo."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from fork_server import run_in_processes

from medvl.utils import distributed
from medvl.utils.distributed import lost_process

WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes(processes):
    if processes == 2:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", WORKER]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, capture_output=True, text=True, timeout=850, env=environment, check=False)
    else:
        done = run_in_processes(processes, [sys.executable, WORKER], CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("done") == processes


def test_a_process_that_leaves_its_group_lets_the_threads_finish(monkeypatch):
    """The abort that this prevents is too rare for a test: a thread of gloo frees tensors while the interpreter ends."""
    calls = []
    monkeypatch.setattr(distributed, "is_distributed", lambda: True)
    monkeypatch.setattr(dist, "barrier", lambda: calls.append("barrier"))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("destroy"))
    monkeypatch.setattr(distributed.time, "sleep", calls.append)
    distributed.destroy_distributed()
    assert calls == ["barrier", "destroy", distributed.DRAIN_SECONDS]
    assert distributed.DRAIN_SECONDS > 0


def test_a_single_process_is_left_as_it_is(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    distributed.init_distributed()
    assert not dist.is_initialized()
    assert not distributed.is_distributed()
    assert (distributed.get_rank(), distributed.get_world_size(), distributed.is_rank_zero()) == (0, 1, True)
    assert distributed.all_reduce_sum(3) == distributed.all_reduce_max(3) == 3
    value = object()
    assert distributed.all_gather_object(value) == [value]
    tensor = torch.ones(2, requires_grad=True)
    assert distributed.all_gather_with_grad(tensor) is tensor
    distributed.barrier()
    distributed.destroy_distributed()


def test_rank_and_world_size_before_the_group_exists(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    assert (distributed.get_rank(), distributed.get_world_size(), distributed.is_rank_zero()) == (2, 4, False)
    monkeypatch.delenv("RANK")
    assert distributed.get_rank() == 0
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert distributed.get_rank() == 0


@pytest.mark.parametrize(("local", "allowed"), [(1, True), (2, False), (3, False)])
def test_each_process_needs_a_gpu_of_its_own(monkeypatch, local, allowed):
    calls = []
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", str(local))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: calls.append(number))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: calls.append((backend, timeout.seconds)))
    if allowed:
        distributed.init_distributed()
        assert calls == [1, ("nccl", 7200)]
        return
    message = f"--nproc_per_node must be at most 2, the number of GPUs of this machine, got {local + 1} or more."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        distributed.init_distributed()
    assert calls == []


def test_one_process_is_the_first_whichever_is_left(monkeypatch):
    """Ranks 3 and 1 of four ask the store of torchrun, by which rank 0 need not be there."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {"WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setattr(distributed, "STORE_SECONDS", 600.0)  # it answers, however slow the machine is
    answers = []
    for rank, restart, what in (("3", "0", "end"), ("1", "0", "end"), ("1", "0", "error"), ("1", "1", "end")):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restart)
        answers.append(distributed.is_first_to(what))
    assert answers == [True, False, True, True]


def test_rank_zero_is_the_first_without_a_store(monkeypatch):
    monkeypatch.setattr(distributed, "STORE_SECONDS", 0.2)
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    for use in ("True", "False"):
        monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", use)
        for rank in ("0", "1"):
            monkeypatch.setenv("RANK", rank)
            assert distributed.is_first_to("end") is (rank == "0")


def test_a_store_that_does_not_answer_is_a_lost_process():
    store = dist.TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
    store.set_timeout(timedelta(seconds=0.2))  # after it was connected, which may take longer
    with pytest.raises(RuntimeError, match="wait timeout") as waited:
        store.get("what nobody sets")
    assert lost_process(waited.value) is not None
    with pytest.raises(RuntimeError, match="EADDRINUSE") as taken:
        dist.TCPStore("127.0.0.1", store.port, is_master=True)
    assert lost_process(taken.value) is None

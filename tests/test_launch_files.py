"""The launch files for SLURM and Kubernetes: their syntax, and that the commands in them are those of the parser."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from torch.distributed.run import get_args_parser

from medvl.cli import app
from medvl.cli.options import parse_settings
from medvl.data.locations import parse_location
from medvl.workflows import settings_text

LAUNCH = Path(__file__).parents[1] / "docs" / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sbatch"))
COMMANDS = typer.main.get_command(app).commands
SLURM = {"SLURM_JOB_NUM_NODES": "8", "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "n[1-8]"}


def kubernetes_job():
    return yaml.safe_load((LAUNCH / "train.pytorchjob.yaml").read_text())


def container(role="Master"):
    (found,) = kubernetes_job()["spec"]["pytorchReplicaSpecs"][role]["template"]["spec"]["containers"]
    return found


def run_script(script, folder):
    """The command lines that a batch script runs, by programs in their place that write down their arguments."""
    for name in ("srun", "medvl"):
        (folder / name).write_text(f'#!/bin/bash\nprintf "%q " {name} "$@" >> {folder}/lines\necho >> {folder}/lines\n')
    # More names than a pipe holds: a reader that ends after the first line would end this program too, at any time or at none.
    (folder / "scontrol").write_text("#!/bin/bash\nset -e\nprintf 'n%d\\n' {1..20000}\n")
    for name in ("srun", "medvl", "scontrol"):
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", **SLURM}
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line.replace("$'", "'")) for line in (folder / "lines").read_text().splitlines()]


def launches(folder):
    """Every line in a launch file that runs a command, by the name of its file."""
    lines = []
    for script in SCRIPTS:
        (folder / script.stem).mkdir()
        lines += [(script.name, line) for line in run_script(script, folder / script.stem)]
    return [*lines, ("train.pytorchjob.yaml", [*container()["command"], *container()["args"]])]


def test_every_command_is_parsed(tmp_path):
    seen = []
    for file, line in launches(tmp_path):
        line = line[1:] if line[0] == "srun" else line
        if line[0] == "torchrun":
            parsed = get_args_parser().parse_args(line[1:])
            assert parsed.module
            assert file != "train.sbatch" or parsed.rdzv_endpoint == "n1:29500", "the first of the job's machines"
            line = [parsed.training_script, *parsed.training_script_args]
        program, name, *arguments = line
        assert program == "medvl"
        context = COMMANDS[name].make_context(name, arguments)  # an unknown option or a wrong value ends it
        seen.append((file, name))
        values = context.params
        if name == "train":
            assert values["resume"], "a job that starts again goes on"
            known = settings_text(values["recipe"], parse_settings(values["settings"]))
            assert "preset" in known
            assert parse_location(values["data"], "data").folder == "/data/packed"
    assert sorted(seen) == [
        ("embed.sbatch", "embed"), ("embed.sbatch", "nearest"), ("train.pytorchjob.yaml", "train"), ("train.sbatch", "train")
    ]  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_batch_scripts(script):
    subprocess.run(["bash", "-n", script], check=True)
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    options = [line for line in lines if line.startswith("#SBATCH")]
    assert lines[1 : len(options) + 1] == options, "SLURM reads options before the first command only"
    values = dict(re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line).groups() for line in options)
    assert values["ntasks-per-node"] == "1", "torchrun starts the processes of a node"
    workers = int(re.search(r"--(?:num-)?workers (\d+)", script.read_text())[1])
    assert int(values["gpus-per-node"]) * (workers + 1) <= int(values["cpus-per-task"])


def test_the_kubernetes_job():
    job = kubernetes_job()
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
    roles = job["spec"]["pytorchReplicaSpecs"]
    assert set(roles) == {"Master", "Worker"}
    assert container("Master") == container("Worker")
    nodes = sum(role["replicas"] for role in roles.values())
    parsed = get_args_parser().parse_args(container()["args"])
    assert (parsed.nnodes, parsed.nproc_per_node) == (
        str(nodes),
        str(container()["resources"]["limits"]["nvidia.com/gpu"]),
    )
    assert container()["name"] == "pytorch"
    for role in roles.values():
        assert role["restartPolicy"] in {"Always", "OnFailure", "Never", "ExitCode"}
        spec = role["template"]["spec"]
        assert {mount["name"] for mount in container()["volumeMounts"]} == {
            volume["name"] for volume in spec["volumes"]
        }
    assert all(isinstance(entry["value"], str) for entry in container()["env"]), "values of variables are texts"


def test_both_train_the_same(tmp_path):
    commands = [line[line.index("train") :] for file, line in launches(tmp_path) if "train." in file]
    by_slurm, by_kubernetes = (
        COMMANDS["train"].make_context("train", [word for word in line[1:]]).params for line in commands
    )
    assert {**by_slurm, "output": None} == {**by_kubernetes, "output": None}

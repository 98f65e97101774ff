"""Trainings in one or several processes, forked so that the libraries are imported once; a process can be killed at a step.

    python tests/workflows/forked_runs.py equal       # several processes learn what one learns from all their batches
    python tests/workflows/forked_runs.py resume      # runs that are killed in mid-epoch go on at the next batch

Each line of the output is a dictionary in JSON; the tests read it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process with more threads cannot be forked
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Events
from PIL import Image
from safetensors.torch import load_file
from two_processes import COMPARABLE, TINY

sys.path.append(str(Path(__file__).parents[1] / "data"))
from packed_tables import LABELS, write_table

import medvl.workflows.training  # noqa: F401  before the forks, as it imports most of what a training needs
from medvl.utils.distributed import ProcessLostError
from medvl.utils.sharding import whole_state
from medvl.workflows import PackSettings, RecipeWorkflow, pack_studies, read_skipped
from medvl.workflows.folder_lock import release_lock

TEXTS = {
    "Pneumothorax": "Large left pneumothorax. The heart is normal.",
    "Edema": "Edema is seen. No pleural effusion. Ribs are intact.",
    "No Finding": "Clear lungs.",
}
STUDIES, BATCH, EPOCHS = 45, 12, 5
"""A batch of all processes has 11 or 12 studies, and the last of convirt's 9: 20 steps in all."""

RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "convirt": ("convirt", {}),
    "medclip": ("medclip", {}),
    "umcl": ("umcl", {}),
    "mlip": ("mlip", {}),
    "medvl": ("medvl", {}),
    "mlip, a term left out, text frozen": ("mlip", {"loss#losses#local": None, "frozen_text_layers": "all"}),
    "medvl, a term left out, images frozen": ("medvl", {"loss#losses#pairs": None, "frozen_image_layers": "all"}),
}
RECIPES["mlip, two terms left out"] = (
    "mlip",
    {"loss#losses#local": None, "loss#losses#reconstruction": None, "loss#losses#global#temperature": 0.1},
)
PACKED = "convirt, from shards"
RECIPES[PACKED] = ("convirt", {"num_workers": 1})
VIEWS = "mlip, several images of a study"
RECIPES[VIEWS] = ("mlip", {})
"""The integrity of an image is by the sentences of its study, which are drawn with the image."""
SHARDED = "mlip, sharded"
RECIPES[SHARDED] = (
    "mlip",
    {"sharded": True, "keep": "best", "gradient_checkpointing": True, "frozen_text_layers": 1},
)
FOUR = ("medclip", "mlip")


def write_tables(folder: Path, validation: int = 0) -> dict[str, str]:
    """Tables of images with labels, images with reports, and reports with labels; a file of each by kind.

    Args:
        folder: where they go.
        validation: number of further studies, for validation.
    """
    folder.mkdir()
    heads = {"image-label": "image,study_id,finding,split", "image-text": "image,study_id,report,split"}
    heads["text-label"] = "study_id,report,finding,split"
    rows = {kind: [head] for kind, head in heads.items()}
    rows["pairs"], rows["views"] = [heads["image-text"]], [heads["image-text"]]
    for i in range(STUDIES + validation):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        name = list(TEXTS)[i % 3]
        kind = "text-label" if i % 6 == 5 else "image-label" if i % 3 == 1 else "image-text"
        values = {"image": f"{i}.png", "study_id": f"s{i}", "report": TEXTS[name], "finding": name, "split": "train"}
        values["split"] = "train" if i < STUDIES else "val"
        rows["views"].append(f"{i}.png,s{i // 2},{TEXTS[list(TEXTS)[i // 2 % 3]]},train")
        for table in (kind, "pairs"):
            rows[table].append(",".join(values[column] for column in rows[table][0].split(",")))
    for kind, lines in rows.items():
        (folder / f"{kind}.csv").write_text("\n".join(lines) + "\n")
    table = write_table(folder / "to pack", 130, split=True)
    pack_studies(table, folder / "packed", PackSettings(32, shard_size=7), columns={"label_column": LABELS})
    return {kind: str(folder / f"{kind}.csv") for kind in rows} | {"packed": f"shards:{folder / 'packed'}"}


def settings_of(case: str, tables: Mapping[str, str], processes: int) -> tuple[str, dict[str, Any]]:
    """A recipe and its settings; the batches of all processes together are the same."""
    recipe, more = RECIPES[case]
    kinds = ["image-text", "image-label"] + (["text-label"] if recipe != "medvl" else [])
    data: dict[str, Any] = {"sources": [f"{kind}={tables[kind]}" for kind in kinds]}
    data["columns"] = {"label_column": "finding"}
    if recipe == "convirt":
        data = {"data": tables["packed" if case == PACKED else "pairs"], "train#dataloader#drop_last": False}
    if case == VIEWS:
        data = {"sources": [f"image-text={tables['views']}"]}
    sizes = {"batch_size": BATCH // processes} | ({"num_texts": BATCH // processes} if recipe == "medclip" else {})
    rates = {"learning_rate": 0.05, "epochs": EPOCHS, "progress": False}
    return recipe, {**TINY, **COMPARABLE, **data, **sizes, **rates, **more}


def run_in_processes(
    processes: int,
    recipe: str,
    settings: Mapping[str, Any],
    output: Path,
    kill: tuple[int, int] | None = None,
    seen: Path | None = None,
) -> list[int]:
    """Train in forked processes; their exit codes, negative for a signal.

    Args:
        processes: how many.
        recipe: its name.
        settings: what differs from its defaults.
        output: the run folder.
        kill: a rank and the iteration after which that process ends by SIGKILL.
        seen: a file that gets a line for each batch of each process: its iteration, its epoch and its ids.
    """
    store = tempfile.mktemp()
    pids = []
    for rank in range(processes):
        pid = os.fork()
        if not pid:
            _train(rank, processes, store, recipe, {**settings, "output": str(output)}, kill, seen)
        pids.append(pid)
    try:
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    finally:
        Path(store).unlink(missing_ok=True)


def _train(
    rank: int,
    processes: int,
    store: str,
    recipe: str,
    settings: Mapping[str, Any],
    kill: tuple[int, int] | None,
    seen: Path | None,
) -> None:
    code, output = 1, Path(settings["output"])
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if processes > 1:
            os.environ.update(RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_RANK=str(rank))
            place = {"init_method": f"file://{store}", "rank": rank, "world_size": processes}
            dist.init_process_group("gloo", timeout=timedelta(days=1), **place)  # which no test waits for
        workflow = RecipeWorkflow(recipe, workflow_type="train")
        workflow.parser.update(dict(settings))
        workflow.initialize()
        network, trainer = (workflow.parser.get_parsed_content(name) for name in ("network", "train#trainer"))
        before = whole_state(network.state_dict())  # every process has a part of a sharded one
        if rank == 0 and not (output / "before.pt").exists():
            torch.save(before, output / "before.pt")

        def after_step(engine: Any) -> None:
            if seen is not None:
                with seen.open("a") as file:  # a short line is written at once
                    file.write(
                        json.dumps([engine.state.iteration, engine.state.epoch, engine.state.batch["study_id"]]) + "\n"
                    )
            if kill == (rank, engine.state.iteration):
                os.kill(os.getpid(), signal.SIGKILL)

        trainer.add_event_handler(Events.ITERATION_COMPLETED, after_step)
        workflow.run()
        workflow.finalize()
        code = 0
    except BaseException as error:  # the process ends here, whatever it is
        while error.__cause__ is not None and not isinstance(error, ProcessLostError):
            error = error.__cause__
        print(f"rank {rank}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        if rank == 0:
            release_lock(output)
    finally:
        sys.stderr.flush()
        os._exit(code)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def compare(one: Path, other: Path) -> dict[str, Any]:
    """The largest difference of a weight over the largest change that the training made, and that of an epoch's loss."""
    first, second, before = weights(one), weights(other), torch.load(one / "before.pt", weights_only=True)
    learned = max(float((first[name] - before[name]).abs().max()) for name in first)
    difference = max(float((first[name] - second[name]).abs().max()) for name in first)
    loss = max(abs(a - b) / abs(a) for a, b in zip(losses(one), losses(other), strict=True))
    return {"difference": difference / learned, "loss": loss, "same": all(first[n].equal(second[n]) for n in first)}


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def check_equal(work: Path, cases: Sequence[str]) -> None:
    """Runs of several processes against a run of one process with all their batches."""
    plain, validated = write_tables(work / "tables"), write_tables(work / "validated", validation=6)
    for number, case in enumerate(cases):
        tables = validated if case == SHARDED else plain
        runs = {}
        for processes in (1, 2, 4) if case in FOUR else (1, 2):
            runs[processes] = work / f"{number}-{processes}"
            codes = run_in_processes(processes, *settings_of(case, tables, processes), runs[processes])
            if any(codes):
                raise SystemExit(f"{case} in {processes} processes ended with {codes}")
            if processes > 1:
                say(case=case, processes=processes, steps=_steps(runs[processes]), **compare(runs[1], runs[processes]))


def check_resume(work: Path, cases: Sequence[str]) -> None:
    """Runs that end by SIGKILL in the middle of an epoch, and go on."""
    tables = write_tables(work / "tables")
    for case in cases:
        kind, *more = case.split()
        check = {
            "first": _check_first,
            "workers": _check_workers,
            "killed": _check_killed,
            "processes": _check_processes,
            "sharded": _check_sharded,
        }
        check[kind](work, tables, *more)


DROPOUT = {"network_def#text_encoder": {**TINY["network_def#text_encoder"], "hidden_dropout_prob": 0.3}}
RESUME_CASES = (
    "first mlip",
    "workers convirt 0", "workers convirt 1", "workers convirt 2", "workers convirt 3", "workers umcl 2",
    "killed mlip", "processes convirt 1 2", "processes medclip 2 1", "sharded mlip",
)  # fmt: skip
INTERVAL, KILLED_AT = 2, 7
"""A checkpoint after the 2nd of 4 steps of an epoch; killed after the 3rd of the second epoch."""
EVERY = {"checkpoint_interval": INTERVAL, "epochs": 3}


def _check_first(work: Path, tables: Mapping[str, str], recipe: str) -> None:
    """Two processes, of which the first writes, skip images that cannot be read, and go on from a checkpoint."""
    run, folder = work / "first", work / "first tables"
    table = write_tables(folder, validation=6)["pairs"]
    for image in (3, 12):
        (folder / f"{image}.png").write_bytes(b"not an image")
    _, settings = settings_of(recipe, tables, 2)
    settings = {key: value for key, value in settings.items() if key not in ("sources", "columns")}
    settings |= {"data": table, "epochs": 2, "on_error": "skip", "keep": "best"}
    codes = [run_in_processes(2, recipe, settings, run)]
    found = sorted(path.name for path in (run / "checkpoints").glob("epoch-*"))
    before, skipped = weights(run), len(read_skipped(run))
    (run / "checkpoints" / "epoch-0002.pt").unlink()
    shutil.rmtree(run / "model")  # a run with a model is complete
    codes += [run_in_processes(2, recipe, {**settings, "resume": True}, run)]
    after = weights(run)
    say(
        case=f"first {recipe}",
        codes=codes,
        checkpoints=found,
        skipped=skipped,
        same=all(after[name].equal(before[name]) for name in before),
        epochs=[json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()],
    )


def _check_workers(work: Path, tables: Mapping[str, str], recipe: str, workers: str) -> None:
    """With Adam and dropout, whose random numbers go on; bit for bit."""
    _, settings = settings_of(recipe, tables, 1)
    settings |= {**DROPOUT, **EVERY, "num_workers": int(workers), "learning_rate": 0.001}
    settings["optimizer#_target_"] = "torch.optim.AdamW"
    _resume(work, f"workers {recipe} {workers}", recipe, settings, settings, (1, 1))


def _check_killed(work: Path, tables: Mapping[str, str], recipe: str) -> None:
    """One of two processes is killed; the other ends."""
    _, settings = settings_of(recipe, tables, 2)
    _resume(work, f"killed {recipe}", recipe, settings | EVERY | DROPOUT, settings | EVERY | DROPOUT, (2, 2))


def _check_processes(work: Path, tables: Mapping[str, str], recipe: str, before: str, after: str) -> None:
    """Another number of processes, whose batches are together as large."""
    first, second = (settings_of(recipe, tables, int(processes))[1] | EVERY for processes in (before, after))
    _resume(work, f"processes {recipe} {before} {after}", recipe, first, second, (int(before), int(after)))


def _check_sharded(work: Path, tables: Mapping[str, str], recipe: str) -> None:
    """Weights that were divided over two processes, in one."""
    first, second = (settings_of(recipe, tables, processes)[1] | EVERY for processes in (2, 1))
    _resume(work, f"sharded {recipe}", recipe, {**first, "sharded": True}, second, (2, 1))


def _resume(
    work: Path, case: str, recipe: str, first: Mapping[str, Any], second: Mapping[str, Any], processes: tuple[int, int]
) -> None:
    """A run that nothing stops, and one that is killed and goes on with other settings in other processes."""
    whole, broken = work / f"whole {case}", work / f"broken {case}"
    lists = {name: work / f"{name} {case}.jsonl" for name in ("whole", "killed", "resumed")}
    codes = [run_in_processes(processes[0], recipe, first, whole, seen=lists["whole"])]
    kill = (processes[0] - 1, KILLED_AT)
    codes += [run_in_processes(processes[0], recipe, first, broken, kill, lists["killed"])]
    found = sorted(path.name for path in (broken / "checkpoints").glob("epoch-*"))
    again = {**second, "resume": True}
    codes += [run_in_processes(processes[1], recipe, again, broken, seen=lists["resumed"])]
    kept = KILLED_AT - 1
    expected, killed, resumed = (_batches(lists[name]) for name in ("whole", "killed", "resumed"))
    say(
        case=case,
        codes=codes,
        checkpoints=found,
        first=min(resumed),
        order={**{step: ids for step, ids in killed.items() if step <= kept}, **resumed} == expected,
        metrics=_without_seconds(whole) == _without_seconds(broken),
        **compare(whole, broken),
    )


def _batches(seen: Path) -> dict[int, Counter[str]]:
    """The ids of all processes in each step."""
    batches: dict[int, Counter[str]] = {}
    for line in seen.read_text().splitlines():
        step, _, ids = json.loads(line)
        batches.setdefault(step, Counter()).update(ids)
    return batches


def _without_seconds(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def _steps(run: Path) -> int:
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["iteration"]


def main() -> None:
    what, *cases = sys.argv[1:]
    with tempfile.TemporaryDirectory() as work:
        if what == "equal":
            check_equal(Path(work), cases or list(RECIPES))
        else:
            check_resume(Path(work), cases or RESUME_CASES)


if __name__ == "__main__":
    main()

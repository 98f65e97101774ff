"""Computes time, memory, traffic and cost of large trainings: ``python docs/make_scale_plan.py`` writes docs/scale_plan.md.

    python docs/make_scale_plan.py                                    # the page, from the figures below
    python docs/make_scale_plan.py --print --gpu gpu.json             # with what tests/benchmarks/gpu.py measured
    python docs/make_scale_plan.py --print --set price=4 --set device_flops=9.9e14 --set batch=512

The formulas are those of the page. ``--set NAME=NUMBER`` replaces any figure; ``--gpu FILE`` those that the file has measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvl.utils.io import write_text

PAGE = Path(__file__).with_name("scale_plan.md")
RECIPE = "medclip"
GPUS = (1, 8, 64)
PAIRS = {400_000: 30, 10_000_000: 10, 400_000_000: 1}
"""Numbers of pairs, and the epochs that a training of so many has."""

GPUS_OF_A_MACHINE = 8
RECOMPUTED = 4 / 3
"""What gradient caching adds to a step: a second forward pass, which is a third of forward and backward."""

LOSS_FLOPS = 8
"""Of a loss in tiles, by N^2 D: its products, again in the backward pass, and the gradients of both sides, 2 each."""

STATE_BYTES = 16
"""Of a weight: itself, its gradient and the two moments of Adam, in float32."""


@dataclass(frozen=True)
class Figure:
    """A figure that the page computes with.

    Args:
        value: the number.
        unit: of it.
        what: it is.
        source: where it comes from: counted, measured or assumed, and how.
    """

    value: float
    unit: str
    what: str
    source: str


_TOWERS = "counted: `FlopCounterMode`, preset base, one image and one sentence"
_SHARDS = "measured: `bench_shards.py`"
FIGURES = {
    "pair_flops": Figure(3.32e10, "FLOP", "a pair's forward and backward pass through both towers", _TOWERS),
    "weights": Figure(1.328e8, "", "weights", "counted: preset base"),
    "width": Figure(512, "", "width D of the embeddings", "counted: preset base"),
    "pair_bytes": Figure(8.56e7, "B", "graph of a pair", "measured: on a CPU in float32; in bfloat16 about half"),
    "image_bytes": Figure(3e4, "B", "a packed image, `uint8`", _SHARDS),
    "row_bytes": Figure(283, "B", "a study in the index of a process", f"{_SHARDS}, 1,000,000 rows"),
    "process_bytes": Figure(7.47e8, "B", "a process before it has studies", f"{_SHARDS}, 1,000,000 rows"),
    "read_rate": Figure(475, "1/s", "studies that one core reads", "measured: processor time, `uint8`"),
    "device_flops": Figure(3.12e14, "FLOP/s", "dense products in bfloat16", "assumed: the data sheet of an A100"),
    "share": Figure(0.15, "", "share of it that a step reaches", "assumed"),
    "machine_bandwidth": Figure(2e11, "B/s", "between the GPUs of a machine, a GPU", "assumed"),
    "network_bandwidth": Figure(2.5e10, "B/s", "between machines, a GPU", "assumed: 200 Gbit/s"),
    "price": Figure(2.0, "USD", "an hour of a GPU", "assumed"),
    "batch": Figure(256, "", "pairs of a GPU in a step", "chosen"),
    "chunk": Figure(64, "", "pairs in a chunk (`cached_chunk`)", "chosen"),
}


@dataclass(frozen=True)
class Plan:
    """A training of ``pairs`` pairs on ``gpus`` GPUs.

    Args:
        figures: values by the names of :data:`FIGURES`.
        pairs: of the training.
        gpus: number of GPUs.
        epochs: passes over the pairs.
    """

    figures: Mapping[str, float]
    pairs: int
    gpus: int
    epochs: int

    def __getattr__(self, name: str) -> float:
        try:
            return self.figures[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def step_pairs(self) -> float:
        """Pairs in a step of all GPUs."""
        return self.gpus * self.batch

    @property
    def compute_seconds(self) -> float:
        """Of a step: the towers, twice forward, and the loss of all pairs on each GPU."""
        speed = self.device_flops * self.share
        again = RECOMPUTED if self.chunk < self.batch else 1
        return self.batch * self.pair_flops * again / speed + LOSS_FLOPS * self.step_pairs**2 * self.width / speed

    @property
    def traffic_bytes(self) -> float:
        """That a GPU sends in a step: the gradients of the weights, the embeddings of its pairs, and their gradients."""
        share = 2 * (self.gpus - 1) / self.gpus
        embeds = 2 * self.step_pairs * self.width * 4
        return share * self.weights * 4 + share / 2 * embeds + share * embeds

    @property
    def traffic_seconds(self) -> float:
        """Of a step, where nothing is sent while something is computed."""
        within = self.gpus <= GPUS_OF_A_MACHINE
        return self.traffic_bytes / (self.machine_bandwidth if within else self.network_bandwidth)

    @property
    def step_seconds(self) -> float:
        """Of a step."""
        return self.compute_seconds + self.traffic_seconds

    @property
    def hours(self) -> float:
        """Of the training."""
        return self.pairs * self.epochs / self.step_pairs * self.step_seconds / 3600

    @property
    def cost(self) -> float:
        """Of the training, in USD."""
        return self.hours * self.gpus * self.price

    @property
    def gpu_bytes(self) -> float:
        """Memory of a GPU: weights and their state, the graph of a chunk, the embeddings of all pairs, the images of a step."""
        graph = min(self.chunk, self.batch) * self.pair_bytes
        embeds = 2 * 2 * self.step_pairs * self.width * 4
        return STATE_BYTES * self.weights + graph + embeds + self.batch * 224 * 224 * 4

    @property
    def machine_bytes(self) -> float:
        """Memory of a machine: a process for each of its GPUs, with the index; workers that are forked share it."""
        return min(self.gpus, GPUS_OF_A_MACHINE) * (self.process_bytes + self.pairs * self.row_bytes)

    @property
    def disk_bytes(self) -> float:
        """Of the packed images."""
        return self.pairs * self.image_bytes

    @property
    def read_bytes_a_second(self) -> float:
        """That all machines read."""
        return self.step_pairs / self.step_seconds * self.image_bytes

    @property
    def cores(self) -> float:
        """That a machine needs to read its studies in time."""
        return min(self.gpus, GPUS_OF_A_MACHINE) * self.batch / self.step_seconds / self.read_rate

    @property
    def embed_hours(self) -> float:
        """To embed the pairs once: a forward pass, a third of forward and backward."""
        return self.pairs * self.pair_flops / 3 / (self.device_flops * self.share) / self.gpus / 3600


COLUMNS = {
    "pairs": lambda plan: f"{plan.pairs / 1e6:g} million",
    "epochs": lambda plan: str(plan.epochs),
    "GPUs": lambda plan: str(plan.gpus),
    "a step": lambda plan: f"{plan.step_seconds:.3f} s",
    "of it traffic": lambda plan: f"{plan.traffic_seconds / plan.step_seconds:.1%}",
    "training": lambda plan: duration(plan.hours),
    "cost": lambda plan: f"{plan.cost:,.0f} USD",
    "memory of a GPU": lambda plan: size(plan.gpu_bytes),
    "memory of a machine": lambda plan: size(plan.machine_bytes),
    "traffic of a GPU, a step": lambda plan: size(plan.traffic_bytes),
    "read, all": lambda plan: f"{size(plan.read_bytes_a_second)}/s",
    "cores of a machine": lambda plan: f"{plan.cores:.1f}",
    "on the disk": lambda plan: size(plan.disk_bytes),
    "embedding": lambda plan: duration(plan.embed_hours),
}
TABLES = {
    "Time and cost": ("pairs", "epochs", "GPUs", "a step", "of it traffic", "training", "cost", "embedding"),
    "Memory, traffic and reading": (
        "pairs", "GPUs", "memory of a GPU", "memory of a machine", "traffic of a GPU, a step", "read, all",
        "cores of a machine", "on the disk",
    ),
}  # fmt: skip


def duration(hours: float) -> str:
    """A time in hours or days."""
    if hours < 1:
        return f"{60 * hours:.1f} min" if hours > 1 / 60 else f"{3600 * hours:.0f} s"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def size(count: float) -> str:
    """Bytes in a unit that fits, powers of 1000."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def measured_figures(result: Mapping[str, Any], recipe: str = RECIPE) -> dict[str, Figure]:
    """The figures that a file of ``tests/benchmarks/gpu.py`` has measured.

    Raises:
        ValueError: If it is of small sizes, as on a CPU, or has no step of the recipe.
    """
    if result["small"]:
        raise ValueError(
            f"{result['device']}: small sizes say nothing of large ones; run gpu.py on a GPU, without --small."
        )
    rows = [row for row in result["results"].get("training", []) if row["what"] == recipe and "seconds" in row]
    products = [row for row in result["results"].get("matrix_throughput", []) if "teraflops" in row]
    if not rows or not products:
        raise ValueError(
            f"The file has no step of {recipe} or no throughput of products (its parts training, matrix_throughput)."
        )
    best = max(rows, key=lambda row: row["images_per_second"])
    source = f"measured: {result['device']}, {result['date']}"
    speed = products[0]["teraflops"] * 1e12
    return {
        "device_flops": Figure(speed, "FLOP/s", FIGURES["device_flops"].what, source),
        "share": Figure(
            FIGURES["pair_flops"].value * best["images_per_second"] / speed, "", FIGURES["share"].what, source
        ),
        "pair_bytes": Figure(best["peak_mib"] * 2**20 / best["n"], "B", FIGURES["pair_bytes"].what, source),
    }


def plans(figures: Mapping[str, Figure]) -> list[Plan]:
    """Every training of the page."""
    values = {name: figure.value for name, figure in figures.items()}
    return [Plan(values, pairs, gpus, epochs) for pairs, epochs in PAIRS.items() for gpus in GPUS]


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figures_table(figures: Mapping[str, Figure]) -> str:
    """The table of figures."""
    rows = [[f"`{name}`", one.what, f"{one.value:.4g} {one.unit}".strip(), one.source] for name, one in figures.items()]
    return markdown_table(["name", "what", "value", "from"], rows)


def plan_table(columns: tuple[str, ...], trainings: list[Plan]) -> str:
    """The table of some columns."""
    return markdown_table(list(columns), [[COLUMNS[column](plan) for column in columns] for plan in trainings])


def page(figures: Mapping[str, Figure], text: str) -> str:
    """The page with its computed parts, which stand between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``, made again."""
    measured = all(figures[name].source.startswith("measured") for name in ("device_flops", "share"))
    parts = {title: plan_table(columns, plans(figures)) for title, columns in TABLES.items()}
    parts |= {"Figures": figures_table(figures), "State": MEASURED if measured else NOT_MEASURED}
    for name, content in parts.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"{PAGE.name} must have {begin} and {end}.")
        text = f"{before}{begin}\n{content}\n{end}{after}"
    return text


MEASURED = "The speed of the GPU was measured."
NOT_MEASURED = """**No GPU has been measured yet.** Its speed, the networks' and the price are assumptions, marked so below,
and so are all times and costs, which follow from them."""


def parse_figures(pairs: list[str], result: Mapping[str, Any] | None = None) -> dict[str, Figure]:
    """The figures, with those of a measurement and then those of ``NAME=NUMBER`` in place of the page's.

    Raises:
        ValueError: If a name is unknown, or a value is not a number above 0.
    """
    figures = dict(FIGURES) if result is None else FIGURES | measured_figures(result)
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in figures:
            raise ValueError(f"--set: {name} must be one of {', '.join(figures)}.")
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            raise ValueError(f"--set {name} must be a number above 0, got {value!r}.")
        figures[name] = Figure(number, figures[name].unit, figures[name].what, "given")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", type=Path, help="the JSON file of tests/benchmarks/gpu.py")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=NUMBER")
    parser.add_argument("--print", dest="show", action="store_true", help="print the tables; the page stays as it is")
    options = parser.parse_args()
    try:
        result = None if options.gpu is None else json.loads(options.gpu.read_bytes())
        figures = parse_figures(options.settings, result)
    except (OSError, ValueError) as error:
        parser.exit(2, f"Error: {error}\n")
    if not options.show:
        write_text(PAGE, page(figures, PAGE.read_text()))
        return
    for title, columns in TABLES.items():
        print(f"{title}\n\n{plan_table(columns, plans(figures))}\n")
    print(f"Figures\n\n{figures_table(figures)}")


if __name__ == "__main__":
    main()

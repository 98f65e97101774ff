"""``python -m evidence``: train what the claims need, write results files, and make the page from them."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from evidence.claim import Claim
from evidence.claims import all_claims, choose_claims
from evidence.page import RESULTS, write_page
from evidence.reproduction import compare, left_out, report
from evidence.scales import SCALES, Scale
from evidence.store import ResultsError, Store

ROOT = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m evidence", description=__doc__)
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--quick", action="store_true", help="tiny sets, to see that everything runs; no evidence")
    form.add_argument("--full", action="store_true", help="what the committed results are made by")
    form.add_argument("--page", action="store_true", help="write docs/evidence.md from the results, train nothing")
    parser.add_argument("--scale", choices=("full", "gpu"), default="full", help="of the full form (full)")
    parser.add_argument("--only", nargs="+", metavar="CLAIM", help="claims by name, or those of one paper, as mlip")
    parser.add_argument(
        "--results", type=Path, help="folder of the results (evidence/results; of --quick a temporary one)"
    )
    parser.add_argument("--again", type=Path, metavar="DIR", help="make results again in DIR, and compare them")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="these seeds alone (all)")
    parser.add_argument(
        "--work", type=Path, help="folder of data and run folders (runs/evidence; of --quick a temporary one)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each (2)")
    parser.add_argument("--keep", action="store_true", help="keep the run folders")
    parser.add_argument("--plan", action="store_true", help="list what is missing and train nothing")
    options = parser.parse_args(arguments)
    try:
        claims = _check(parser, options)
        return _do(claims, options)
    except (ResultsError, OSError) as error:
        parser.exit(1, f"python -m evidence: error: {error}\n")


FORMS = {
    "page": {"scale", "results"},
    "quick": {"only", "results", "seeds", "work", "jobs", "keep", "plan"},
    "full": {"scale", "only", "results", "again", "seeds", "work", "jobs", "keep", "plan"},
}
"""The options that each form takes."""


def _scale(options: argparse.Namespace) -> Scale:
    return SCALES["quick" if options.quick else options.scale]


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Claim]:
    """The claims that are asked for; ends the command where an option is not one of the form, or has no such value."""
    form = next(name for name in FORMS if getattr(options, name))
    for name in sorted(set().union(*FORMS.values()) - FORMS[form]):
        if getattr(options, name) != parser.get_default(name):
            takes = " or ".join(f"--{other}" for other, names in FORMS.items() if name in names)
            parser.error(f"--{name} must come with {takes}.")
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {options.jobs}.")
    seeds = _scale(options).seeds
    for seed in options.seeds or ():
        if seed not in seeds:
            parser.error(f"--seeds must be among {', '.join(map(str, seeds))}, got {seed}.")
    if options.again and options.again.resolve() == (options.results or RESULTS).resolve():
        parser.error(f"--again must be another folder than that of the committed results, got {options.again}.")
    try:
        return choose_claims(options.only)
    except ValueError as error:
        parser.error(str(error))


def _do(claims: Sequence[Claim], options: argparse.Namespace) -> int:
    scale, committed = _scale(options), Store(options.results or RESULTS)
    if options.page:
        print(write_page(committed, ROOT / "docs", scale.name))
        return 0
    if options.full:
        store = Store(options.again) if options.again else committed
        status = run(claims, scale, store, options.work or ROOT / "runs" / "evidence", options, committed)
        if options.again and not options.plan:
            found = compare(store, committed, scale.name)
            print(report(found, left_out(store, committed, scale.name)))
        return status
    with tempfile.TemporaryDirectory() as folder:
        store = Store(options.results or Path(folder) / "results")
        status = run(claims, scale, store, options.work or Path(folder) / "work", options)
        if not status and store.results(scale.name):
            page = write_page(store, Path(folder) / "docs", scale.name)
            print(f"The page was rendered: {len(page.read_text().splitlines())} lines.")
        return status


def run(
    claims: Sequence[Claim],
    scale: Scale,
    store: Store,
    work: Path,
    options: argparse.Namespace,
    timed: Store | None = None,
) -> int:
    """Make the results that are missing, and print the verdicts; ``timed`` has results that tell how long it takes."""
    from evidence import runner  # imports torch and monai, which the page can do without

    tasks = runner.plan(claims, all_claims(), scale, store, work.resolve(), options.keep)
    tasks = [task for task in tasks if options.seeds is None or task.seed in options.seeds]
    for name in runner.without_data(claims, all_claims()):
        print(f"Left out: {name}, whose real data are not here.")
    if names := runner.of_other_forms(claims, scale):
        print(f"Left out of the {scale.name} form: {', '.join(names)}.")
    seconds = runner.expected_seconds(tasks, timed or store)
    time = f", about {seconds / options.jobs / 60:.0f} minutes by earlier results" if seconds else ""
    print(f"{len(tasks)} trainings to do, {options.jobs} at a time{time}.", flush=True)
    if options.plan:
        for task in tasks:
            print(f"  {task.arm}, seed {task.seed}: {', '.join(task.measures)}")
        return 0
    errors = runner.run_tasks(tasks, options.jobs)
    for error in errors:
        print(error)
    for claim in claims:
        print(f"{claim.name}: {claim.verdict(store, scale.name)}")
    return 1 if errors else 0


if __name__ == "__main__":
    raise SystemExit(main())

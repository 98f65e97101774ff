"""Evaluates a trained run and writes the report."""

from __future__ import annotations

from pathlib import Path

import yaml
from tqdm.auto import tqdm

from medvl.bundles.run_folder import CONFIG, METRICS
from medvl.bundles.trained_run import TrainedRun
from medvl.data import Manifest
from medvl.evaluation import Evaluation, evaluate, write_report
from medvl.handlers import read_metrics
from medvl.networks import DualEncoder

EVALUATION, REPORT = "evaluation.json", "report.html"
GALLERY = 400  # studies of which the report may show the picture

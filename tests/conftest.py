"""Fixtures that tests of several packages use."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests begin first, so that no process ends long after the other."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the project; skips where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data at ../shared/data, beside the project")
    return folder


@pytest.fixture(scope="session")
def docs_script() -> Callable[[str], ModuleType]:
    """Loads a script of the folder docs, such as ``make_commands``, as a module."""

    def load(name: str) -> ModuleType:
        path = Path(__file__).resolve().parents[1] / "docs" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"docs_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def peak_code() -> str:
    """Code of a function ``peak``: kilobytes that its process had at most; ``ru_maxrss`` begins with those of its parent."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("reads the peak memory in /proc")
    return """
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

"""


@pytest.fixture
def default_signals() -> Iterator[None]:
    """Signals as in a terminal, here and in processes started here, where the tests run with some ignored (``nohup``)."""
    usual = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}
    before = {getattr(signal, name): signal.signal(getattr(signal, name), usual[name]) for name in usual}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def medvl(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process: (exit code, standard output, standard error)."""
    from medvl import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["medvl", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run

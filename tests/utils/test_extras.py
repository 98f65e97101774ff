"""Optional dependencies: each extra of setup.cfg installs what the code asks for, and a missing one is one sentence."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medvl.utils.extras import EXTRAS, MissingExtraError, extra_modules, require_extra

ROOT = Path(__file__).parents[2]
# modules of another name
PACKAGES = {
    "itk": "itk-io",
    "faiss": "faiss-cpu",
    "ignite": "pytorch-ignite",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "ruamel": "ruamel.yaml",
}
NEEDS = {
    **dict.fromkeys(["transforms", "networks", "data", "inferers", "engines", "handlers", "metrics"], "monai"),
    "evaluation": "evaluation",
    "workflows": "evaluation",
}

# What pip does not install is hidden: an import of it fails as if it were not there.
HIDE = "import sys\nfor name in {hidden!r}:\n    sys.modules[name] = None\n"


def run(code: str, hidden: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", HIDE.format(hidden=hidden) + code], capture_output=True, text=True)


def requirements(extra: str) -> set[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.extras_require"][extra].split("\n")
    return {re.split(r"[<>=~!\[ ]", line)[0] for line in lines if line}


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_installs_the_modules_that_are_asked_for(extra):
    assert requirements(extra) == {PACKAGES.get(module, module) for module in extra_modules(extra)}


@pytest.mark.parametrize("extra", [*EXTRAS, "tensorboard"])
def test_all_and_dev_hold_every_extra(extra):
    assert requirements(extra) <= requirements("all") <= requirements("docs") <= requirements("dev")


def test_what_is_installed_passes_and_what_is_missing_is_named(monkeypatch):
    require_extra("medvl.transforms", "monai")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(
        MissingExtraError, match=r'^medvl.transforms needs pydicom: pip install "medvl\[monai\]"$'
    ) as error:
        require_extra("medvl.transforms", "monai")
    assert error.value.name == "pydicom"


def test_the_base_install_serves_losses_functional_text_and_utils():
    code = """
import medvl.functional, medvl.losses, medvl.text
from medvl.utils import checks, distributed, errors, extras, ids, io, modes, tensors
"""
    done = run(code, list(extra_modules("cli")))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("package", "extra"), NEEDS.items())
def test_a_package_without_its_extra_says_which_to_install(package, extra):
    missing = "monai" if extra == "monai" else "pandas"
    done = run(f"import medvl.{package}", [missing])
    last = done.stderr.strip().splitlines()[-1]
    error = f'MissingExtraError: medvl.{package} needs {missing}: pip install "medvl[{extra}]"'
    assert last == f"medvl.utils.extras.{error}"


def test_every_package_with_an_init_is_of_the_base_or_names_its_extra():
    folders = {path.parent.name for path in (ROOT / "medvl").glob("*/__init__.py")}
    assert folders == {*NEEDS, "functional", "losses", "text", "utils", "bundles", "cli"}


def test_the_command_without_its_extra_says_so_in_one_sentence():
    done = run("from medvl.__main__ import main\nmain()", ["typer"])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'The medvl command needs typer: pip install "medvl[cli]"\n'

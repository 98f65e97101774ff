"""The package's own shape: who imports whom, and what importing costs."""

from __future__ import annotations

import ast
import configparser
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import medvl

ROOT = Path(medvl.__file__).parent

LAYERS = [
    {"utils"},
    {"functional", "text"},
    {"losses", "networks", "metrics", "transforms"},
    {"data", "inferers", "engines", "handlers"},
    {"evaluation"},
    {"workflows"},
    {"bundles", "cli"},
    {"__main__"},
]
RANK = {package: rank for rank, layer in enumerate(LAYERS) for package in layer}
IGNITE = {"engines", "handlers", "workflows"}
TRANSFORMERS = ("networks.encoders", "transforms.tokenize", "transforms.tokenizer_training")  # with what is inside them
PLAIN = {
    "utils": {"torch", "yaml"},
    "text": {"numpy", "yaml"},
    "functional": {"torch"},
    "losses": {"torch"},
    "bundles": set(),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path) -> set[str]:
    """Absolute names of every module that a file imports, at the top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import, write the full name"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


PACKAGES = {path.parent.name for path in ROOT.glob("*/__init__.py")}
MODULES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_one_way(path):
    own = module_name(path).split(".")[0]
    for name in imported_modules(path):
        if not name.startswith("medvl."):
            continue
        other = name.split(".")[1]
        if other.startswith("_"):
            continue
        assert other == own or RANK[other] < RANK[own], f"medvl.{own} may not import medvl.{other}"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_frameworks_stay_in_their_packages(path):
    name = module_name(path)
    package = name.split(".")[0]
    tops = {module.split(".")[0] for module in imported_modules(path)} - {"medvl"} - sys.stdlib_module_names
    if package in PLAIN:
        assert tops <= PLAIN[package]
    if "ignite" in tops:
        assert package in IGNITE
    if "transformers" in tops:
        assert any(name == room or name.startswith(f"{room}.") for room in TRANSFORMERS)


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("from medvl.losses import ImageTextContrastiveLoss", ["monai", "transformers", "ignite", "pandas"]),
        ("import medvl.functional", ["monai", "transformers", "ignite", "pandas"]),
        ("import medvl.text", ["torch", "monai", "transformers", "ignite"]),
        ("import medvl.cli", ["torch", "monai", "transformers", "numpy", "pandas"]),
        ("import medvl", ["torch", "monai", "numpy"]),
        ("import medvl.utils", ["torch", "monai", "numpy"]),
        ("import medvl.bundles, medvl.workflows", ["monai", "transformers", "ignite", "sklearn", "matplotlib"]),
    ],
)
def test_light_imports_stay_light(statement, absent):
    code = f"{statement}\nimport sys\nprint([m for m in {absent!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_lower_bounds_are_those_of_setup_cfg():
    setup = configparser.ConfigParser()
    setup.read(ROOT.parent / "setup.cfg")
    wanted = setup["options"]["install_requires"].split("\n") + setup["options.extras_require"]["cli"].split("\n")
    bounds = (ROOT.parent / ".ci" / "lower-bounds.txt").read_text().splitlines()[1:]
    assert bounds == sorted((line.replace(">=", "==") for line in wanted if line), key=str.lower)


def test_python_versions_agree():
    setup = configparser.ConfigParser()
    setup.read(ROOT.parent / "setup.cfg")
    tools = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]
    classified = re.findall(r"Python :: (3\.\d+)", setup["metadata"]["classifiers"])
    tested = set(re.findall(r'python: "(.*?)"', (ROOT.parent / ".github/workflows/ci.yml").read_text()))
    lowest = setup["options"]["python_requires"].removeprefix(">=")
    assert lowest == classified[0] == min(tested, key=lambda version: int(version.split(".")[1]))
    assert set(classified) == tested
    assert f"Python {lowest} or newer" in (ROOT.parent / "CONTRIBUTING.md").read_text()
    assert tools["mypy"]["python_version"] == lowest
    assert tools["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"


def test_the_wheel_holds_every_file_that_is_not_code():
    setup = configparser.ConfigParser()
    setup.read(ROOT.parent / "setup.cfg")
    patterns = setup["options.package_data"]["medvl"].split()
    packaged = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    data = {path for path in ROOT.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert data == packaged


def test_subpackages_load_on_attribute_access():
    assert "losses" in dir(medvl)
    assert medvl.losses.__name__ == "medvl.losses"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        medvl.nonsense  # noqa: B018


def public_names(package: str) -> list[str]:
    module = importlib.import_module(f"medvl.{package}")
    return [f"{package}.{name}" for name in getattr(module, "__all__", [])]


LAZY = sorted(name for name in PACKAGES if "__getattr__" in (ROOT / name / "__init__.py").read_text())


@pytest.mark.parametrize("package", LAZY)
def test_no_name_that_loads_on_use_is_that_of_a_module_beside_it(package):
    # Importing the module would put it in the place of the name.
    modules = {path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not modules & {name.removeprefix(f"{package}.") for name in public_names(package)}
    assert {"data", "evaluation", "workflows"} <= set(LAZY)


def undocumented(name: str) -> list[str]:
    """What of a public name, or of the public methods that its class defines, has no docstring of its own."""
    package, attribute = name.split(".")
    value = getattr(importlib.import_module(f"medvl.{package}"), attribute)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return []  # a constant: its comment or the page describes it
    members = [(name, value)]
    if inspect.isclass(value):
        members += [
            (f"{name}.{key}", member.fget if isinstance(member, property) else getattr(member, "__func__", member))
            for key, member in vars(value).items()
            if not key.startswith("_") and key not in INHERITED
        ]
    return [
        key for key, member in members if (inspect.isclass(member) or inspect.isfunction(member)) and not member.__doc__
    ]


# What MONAI, torch and ignite call, documented there.
INHERITED = {"forward", "backward", "randomize", "set_random_state", "attach", "inverse"}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_every_public_name_has_a_docstring(package):
    assert importlib.import_module(f"medvl.{package}").__doc__
    assert [missing for name in public_names(package) for missing in undocumented(name)] == []


def end_of_message(node: ast.expr) -> str | None:
    """The last words of a message that stands in a raise; None where it is made elsewhere."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        last = node.values[-1]
        # The error of another call is a sentence of its own.
        wraps = isinstance(last, ast.FormattedValue) and (
            isinstance(last.value, ast.IfExp) or re.match(r"error$|describe_step\(", ast.unparse(last.value))
        )
        return None if wraps else str(last.value) if isinstance(last, ast.Constant) else ""
    return None


@pytest.mark.parametrize(("message", "end"), [("'a.'", "a."), ("f'a {b}'", ""), ("f'a {b}.'", "."), ("f(b)", None)])
def test_ends_of_messages_are_found(message, end):
    assert end_of_message(ast.parse(message, mode="eval").body) == end


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_messages_of_errors_are_sentences(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
            continue
        if ast.unparse(node.exc.func) in {"AttributeError", "StudyError"}:  # Python's own form; a reason in a sentence
            continue
        end = end_of_message(node.exc.args[0])
        assert end is None or end.endswith((".", "?")), f"{path}:{node.lineno}: a message ends with a full stop"


BRITISH = re.compile(
    r"\w*(?:colour|grey|labell(?:ed(?!by)|ing|er)|centre(?!\w*port)|licence|behaviour|neighbour|favour|analys(?:e\b|ed|ing)|modell(?:ed|ing)"
    r"|(?:normal|standard|visual|random|optim|capital|recogn|initial|parameter|token|vector|final|summar|organ|real|util"
    r"|general|minim|maxim|categor|local|regular|special|serial|character|emphas)is(?:e|ed|es|er|ers|ing|ation|ations)\b)\w*",
    re.IGNORECASE,
)
REPOSITORY = ROOT.parent
SPELLED = [
    path
    for folder in ("medvl", "docs", "tutorials")
    for path in sorted((REPOSITORY / folder).rglob("*"))
    if path.suffix in {".py", ".md", ".j2", ".json"} or (path.suffix == ".yaml" and path.parent.name != "vocabularies")
] + [
    path
    for path in REPOSITORY.glob("*.*")
    if path.suffix in {".md", ".cfg", ".toml", ".cff"} and path.name != "CHANGELOG.md"  # which lists old names
]


@pytest.mark.parametrize("path", SPELLED, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_spelling_is_american(path):
    # Addresses and the HTML attribute are spelled as they are, and so are old names in the changelog's "Renamed".
    text = re.sub(r"https?://\S+|aria-labelledby", "", path.read_text(encoding="utf-8"))
    text = "".join(line for line in text.splitlines(True) if path.name != "CHANGELOG.md" or "→" not in line)
    assert not [found.group() for found in BRITISH.finditer(text)]


def test_examples_are_the_same_for_everyone_and_depend_on_no_clock():
    fixed, explore = (settings.get_profile(name) for name in ("fixed", "explore"))
    assert (fixed.derandomize, explore.derandomize) == (True, False)
    for profile in (fixed, explore):
        assert profile.deadline is None
        assert HealthCheck.too_slow in profile.suppress_health_check

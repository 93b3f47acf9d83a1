"""Imports go one way, and the rooms that promise to do without torch do."""

import ast
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

PACKAGE = "nnunetv2_malenia"
REPOSITORY = Path(__file__).parents[1]
FOLDERS_BESIDE_THE_PACKAGE = ("attribute_tables", "dataset_conversion")

# Each link's rooms may be imported by the rooms of the links after it. What is not listed does not happen.
CHAINS = (
    "files <- volumes <- phantom, evaluation, inference, report, dataset_conversion, demo, cli",
    "files <- attributes, training",
    "attributes <- evaluation <- report <- demo <- cli",
    "attributes, network, phantom <- training <- nnunet_ext, demo, cli",
    "attributes, network <- inference <- demo, cli",
    "attributes <- phantom <- demo, cli",
    "attributes <- dataset_conversion <- demo, cli",
)
ROOMS_WITHOUT_TORCH = ("discovery", "files", "volumes", "attributes", "evaluation", "report", "phantom", "cli")


def importable_rooms() -> dict[str, set[str]]:
    """Room -> the other rooms that it may import, read off the chains."""
    allowed: dict[str, set[str]] = {"__init__": set(), "discovery": set(), "attribute_tables": set()}
    for chain in CHAINS:
        earlier: set[str] = set()
        for link in chain.split(" <- "):
            rooms = link.split(", ")
            for room in rooms:
                allowed.setdefault(room, set()).update(earlier)
            earlier.update(rooms)
    return allowed


def modules() -> dict[str, Path]:
    """Dotted name, as installed -> file, for every module of the package."""
    found = {}
    for folder in (PACKAGE, *FOLDERS_BESIDE_THE_PACKAGE):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
            found[f"{PACKAGE}.{name.removeprefix(f'{PACKAGE}.')}"] = path
    return found


def room_of(module: str) -> str:
    return module.split(".")[1]


def imported_names(source: str, module: str) -> set[str]:
    """All that a module imports, at its top or inside a function, with relative imports made absolute."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), module.rpartition(".")[0])
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def forbidden_imports(source: str, module: str) -> set[str]:
    """What a module imports from rooms that its own may not see; the package's version is for all."""
    allowed = {room_of(module), "__version__"} | importable_rooms()[room_of(module)]
    ours = {name for name in imported_names(source, module) if name.startswith(f"{PACKAGE}.")}
    return {name for name in ours if room_of(name) not in allowed}


@pytest.mark.parametrize("module", modules())
def test_modules_import_only_rooms_before_theirs(module):
    assert room_of(module) in importable_rooms(), "give the room its place in CHAINS"
    assert forbidden_imports(modules()[module].read_text(encoding="utf-8"), module) == set()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("attributes.tables", "import nnunetv2_malenia.network"),
        ("attributes.tables", "from nnunetv2_malenia import network"),
        ("network.fusion", "from nnunetv2_malenia.attributes.schema import ASPECTS"),
        ("network.fusion", "from ..attributes import schema"),
        ("network.fusion", "from .. import attributes"),
        ("training.trainer", "def late():\n    from nnunetv2_malenia.inference.predictor import Predictor"),
        ("inference.export", "import nnunetv2_malenia.training.losses as losses"),
        ("phantom.lesions", "from nnunetv2_malenia.training import targets"),
        ("evaluation.metrics", "from nnunetv2_malenia.report import html"),
        ("dataset_conversion.merge", "from nnunetv2_malenia.evaluation import metrics"),
    ],
)
def test_an_import_against_the_direction_is_noticed(module, source):
    assert forbidden_imports(source, f"{PACKAGE}.{module}")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("attributes.tables", "from .schema import ASPECTS"),
        ("evaluation.summary", "from nnunetv2_malenia import __version__"),
        ("training.trainer", "from ..attributes import bank\nfrom nnunetv2_malenia.phantom import lesions"),
        ("cli", "def late():\n    from nnunetv2_malenia.inference import predictor"),
        ("network.fusion", "import torch\nimport nnunetv2.utilities"),
    ],
)
def test_an_import_in_the_direction_is_not(module, source):
    assert forbidden_imports(source, f"{PACKAGE}.{module}") == set()


IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
room = importlib.import_module(sys.argv[1])
inside = pkgutil.walk_packages(getattr(room, "__path__", []), room.__name__ + ".")
modules = [room.__name__, *(importlib.import_module(module.name).__name__ for module in inside)]
print(len(modules), "torch" in sys.modules)
"""


def loads_torch(room: str, folder: Path) -> bool:
    """Whether importing every module of a room in a Python of its own leaves torch loaded."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING, f"{PACKAGE}.{room}"],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    count, loaded = done.stdout.split()
    is_package = (REPOSITORY / PACKAGE / room).is_dir()
    assert int(count) > is_package, f"no module found in {room}"
    return loaded == "True"


def existing(rooms: tuple[str, ...]) -> list[str]:
    return [room for room in rooms if any((REPOSITORY / PACKAGE).glob(f"{room}*"))]


@pytest.mark.parametrize("room", existing(ROOMS_WITHOUT_TORCH))
def test_the_room_imports_without_torch(room, tmp_path):
    assert not loads_torch(room, tmp_path)


def test_a_room_that_imports_torch_is_noticed(tmp_path):
    assert loads_torch("network", tmp_path)

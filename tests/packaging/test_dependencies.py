"""What the code imports is what the package says it needs."""

import ast
import re
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SHIPPED = ("nnunetv2_malenia", "attribute_tables", "dataset_conversion")


def normalised(distribution: str) -> str:
    """PEP 503: connected_components_3d and Connected-Components-3D are one."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def imported_packages(source: str) -> set[str]:
    """Top-level names of all absolute imports, those inside functions too."""
    nodes = list(ast.walk(ast.parse(source)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    members = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in plain | members}


DISTRIBUTIONS = packages_distributions()


def third_party() -> list[str]:
    files = [path for folder in SHIPPED for path in (REPOSITORY / folder).rglob("*.py")]
    found = set().union(*(imported_packages(path.read_text(encoding="utf-8")) for path in files))
    return sorted(found - sys.stdlib_module_names - {"nnunetv2_malenia"})


@pytest.mark.parametrize("package", third_party())
def test_every_package_that_is_imported_is_declared(package):
    declared = {normalised(re.match(r"[\w.-]+", line).group()) for line in requires("nnunetv2_malenia")}
    providers = {normalised(name) for name in DISTRIBUTIONS.get(package, [package])}

    assert providers & declared, f"{package} is imported: add {' or '.join(providers)} to pyproject.toml"


def test_every_dependency_has_a_lower_bound():
    loose = [line for line in requires("nnunetv2_malenia") if ">=" not in line and not line.startswith("nnunetv2_mal")]

    assert loose == []

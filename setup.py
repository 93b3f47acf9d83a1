"""Which folders make up the package, and a build step that puts nnunetv2_malenia.pth beside it.

Python runs that file whenever it starts, which tells nnU-Net where our trainers are: nnunetv2_malenia/discovery.py.
"""

from pathlib import Path
from typing import ClassVar

from setuptools import Command, find_packages, setup
from setuptools.command.build import build

# Python runs .pth files by name: ours must come after __editable__*, which makes an editable install importable.
PTH_NAME = "nnunetv2_malenia.pth"
# One line that starts with "import", or Python takes it for a path; a damaged install must not disturb other programs.
PTH_LINE = (
    "import os; "
    r"exec('try: import nnunetv2_malenia.discovery as d; d.announce_trainers()\nexcept Exception: pass')"
    "\n"
)


class build_discovery(Command):
    """Write the .pth file to the root of the build folder, or of the editable wheel, which has no build folder."""

    user_options: ClassVar[list[tuple[str, str, str]]] = []
    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self) -> None:
        folder = self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, PTH_NAME).write_text(PTH_LINE, encoding="utf-8")

    def get_outputs(self) -> list[str]:
        return [] if self.editable_mode else [str(Path(self.build_lib, PTH_NAME))]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return []


class BuildWithDiscovery(build):
    """setuptools' build, and ours after it."""

    sub_commands: ClassVar[list] = [*build.sub_commands, ("build_discovery", None)]


setup(
    cmdclass={"build": BuildWithDiscovery, "build_discovery": build_discovery},
    packages=[
        *find_packages(include=["nnunetv2_malenia", "nnunetv2_malenia.*"]),
        "nnunetv2_malenia.nnunet_ext",  # not found above: it must not have an __init__.py
        "nnunetv2_malenia.attribute_tables",
        "nnunetv2_malenia.dataset_conversion",
    ],
)

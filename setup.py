"""Build hook: puts nnunetv2_malenia.pth, which tells nnU-Net where our trainers are, beside the installed package."""

from pathlib import Path

from setuptools import Command, find_packages, setup
from setuptools.command.build import build

PTH_NAME = "nnunetv2_malenia.pth"  # sorts after __editable__*.pth, which makes the package of an editable install importable
PTH_LINE = "import os; exec('try: from nnunetv2_malenia.discovery import announce_trainers as a; a()\\nexcept Exception: pass')\n"


class build_discovery(Command):  # noqa: N801 - setuptools names commands so
    """Write the .pth file to the root of what will be site-packages: of the build folder, or of the editable wheel."""

    user_options: list[tuple[str, str, str]] = []
    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self) -> None:
        folder = self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, PTH_NAME).write_text(PTH_LINE)

    def get_outputs(self) -> list[str]:
        return [str(Path(self.build_lib, PTH_NAME))]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return []


class BuildWithDiscovery(build):
    sub_commands = [*build.sub_commands, ("build_discovery", None)]


setup(
    cmdclass={"build": BuildWithDiscovery, "build_discovery": build_discovery},
    packages=[
        *find_packages(include=["nnunetv2_malenia", "nnunetv2_malenia.*"]),
        "nnunetv2_malenia.nnunet_ext",  # has no __init__.py, so it is not found
        "nnunetv2_malenia.attribute_tables",
        "nnunetv2_malenia.dataset_conversion",
    ],
)

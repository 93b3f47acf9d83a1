"""The package as a user installs it, from a wheel, a source distribution, or editable; and uninstalled again."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SHIPPED_FOLDERS = {  # in the repository -> in the wheel
    "nnunetv2_malenia": "nnunetv2_malenia",
    "attribute_tables": "nnunetv2_malenia/attribute_tables",
    "dataset_conversion": "nnunetv2_malenia/dataset_conversion",
}
BUILD_FILES = ("pyproject.toml", "setup.cfg", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")
ANNOUNCED = "import os; print(os.environ.get('nnUNet_extTrainer'))"
NOT_SHIPPED = shutil.ignore_patterns("__pycache__", ".*")


def run(*command: object, **options) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL, **options
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done


@dataclass(frozen=True)
class Environment:
    """A new virtual environment without pip, in which nothing of the running one can be imported unless lent."""

    root: Path

    @classmethod
    def create(cls, root: Path) -> "Environment":
        venv.create(root, with_pip=False, symlinks=os.name != "nt")
        return cls(root)

    def folder(self, kind: str) -> Path:
        scheme = "nt" if os.name == "nt" else "posix_prefix"
        return Path(sysconfig.get_path(kind, scheme, {"base": str(self.root)}))

    @property
    def scripts(self) -> Path:
        return self.folder("scripts")

    @property
    def site_packages(self) -> Path:
        return self.folder("purelib")

    @property
    def shim(self) -> Path:
        return self.site_packages / "nnunetv2_malenia" / "nnunet_ext"

    def run(self, *command: object, trainer_folders: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's programs as a fresh shell would: with nothing of the running Python exported."""
        variables = {k: v for k, v in os.environ.items() if k not in ("nnUNet_extTrainer", "PYTHONPATH", "PYTHONHOME")}
        if trainer_folders is not None:
            variables["nnUNet_extTrainer"] = trainer_folders
        program, *arguments = command
        return run(self.scripts / str(program), *arguments, cwd=self.root, env=variables)

    def python(self, code: str, **options: str | None) -> str:
        return self.run("python", "-c", code, **options).stdout.strip()

    def pip(self, *arguments: object) -> None:
        run(sys.executable, "-m", "pip", "--python", self.scripts / "python", "--quiet", *arguments)

    def install(self, wheel: Path) -> None:
        self.pip("install", "--no-deps", "--no-index", wheel)

    def lend_dependencies(self) -> None:
        """Let it import what the running environment has; what it has installed itself comes first."""
        lent = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
        (self.site_packages / "lent.pth").write_text("\n".join(lent))

    def files(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of what is built, so that no build folder of another day has a say, and none is left in the repository."""
    copy = tmp_path_factory.mktemp("source")
    for folder in SHIPPED_FOLDERS:
        shutil.copytree(REPOSITORY / folder, copy / folder, ignore=NOT_SHIPPED)
    for file in BUILD_FILES:
        shutil.copy(REPOSITORY / file, copy)
    return copy


def build(what: str, source: Path, folder: Path) -> Path:
    """Call setuptools as installers do, by what to build: wheel, editable or sdist; returns the archive."""
    hook = f"from setuptools import build_meta; build_meta.build_{what}({str(folder)!r})"
    run(sys.executable, "-c", hook, cwd=source)
    (archive,) = folder.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel_from_sdist(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(build("sdist", source, tmp_path_factory.mktemp("sdist")), folder)
    (unpacked,) = folder.iterdir()
    return build("wheel", unpacked, tmp_path_factory.mktemp("wheel_from_sdist"))


@pytest.fixture(scope="module")
def editable(source, tmp_path_factory) -> Path:
    return build("editable", source, tmp_path_factory.mktemp("editable"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Environment:
    environment = Environment.create(tmp_path_factory.mktemp("installed"))
    environment.install(wheel)
    environment.lend_dependencies()
    return environment


def packaged_files(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_every_file_of_the_package_and_nothing_beside_it(source, wheel):
    expected = {
        f"{packaged}/{path.relative_to(source / folder).as_posix()}"
        for folder, packaged in SHIPPED_FOLDERS.items()
        for path in (source / folder).rglob("*")
        if path.is_file()
    }

    assert packaged_files(wheel) == expected | {"nnunetv2_malenia.pth"}


def test_the_source_distribution_builds_the_same_wheel(wheel, wheel_from_sdist):
    assert packaged_files(wheel_from_sdist) == packaged_files(wheel)


@pytest.mark.parametrize("form", ["wheel", "wheel_from_sdist", "editable"])
def test_an_install_announces_the_trainers_and_uninstalling_leaves_nothing(form, request, source, tmp_path):
    environment = Environment.create(tmp_path / "new")
    (environment.site_packages / "another_package.py").touch()
    before = environment.files()

    environment.install(request.getfixturevalue(form))
    shim = source / "nnunetv2_malenia" / "nnunet_ext" if form == "editable" else environment.shim
    assert environment.python(ANNOUNCED) == str(shim)
    environment.python("import nnunetv2_malenia.attribute_tables, nnunetv2_malenia.dataset_conversion")
    assert environment.files() > before

    environment.pip("uninstall", "--yes", "nnunetv2_malenia")
    assert environment.python(ANNOUNCED) == "None"
    assert environment.files() == before


def test_an_editable_install_is_importable_before_the_trainers_are_announced(editable):
    _, last = sorted(name for name in zipfile.ZipFile(editable).namelist() if name.endswith(".pth"))

    assert last == "nnunetv2_malenia.pth"


def test_the_folder_for_an_export_by_hand_can_be_asked_for(installed):
    ask = "from nnunetv2_malenia.discovery import TRAINER_FOLDER; print(TRAINER_FOLDER)"

    assert installed.python(ask) == str(installed.shim)


def test_the_users_own_trainer_folders_stay_in_front(installed):
    theirs = os.pathsep.join(["their_trainers", "more_trainers"])

    announced = installed.python(ANNOUNCED, trainer_folders=theirs)

    assert announced == os.pathsep.join([theirs, str(installed.shim)])


def test_child_processes_do_not_list_the_folder_twice(installed):
    child = f"import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', {ANNOUNCED!r}], text=True))"

    assert installed.python(child) == str(installed.shim)


def test_starting_python_loads_two_modules_more_and_no_other(installed, tmp_path):
    loaded = "import sys; print(*sys.modules)"
    without = set(Environment.create(tmp_path / "empty").python(loaded).split())

    assert set(installed.python(loaded).split()) - without == {"nnunetv2_malenia", "nnunetv2_malenia.discovery"}


@pytest.mark.parametrize("damage", ["missing", "unreadable"])
def test_a_damaged_install_goes_unnoticed_by_other_programs(wheel, tmp_path, damage):
    environment = Environment.create(tmp_path / "new")
    environment.install(wheel)
    if damage == "missing":
        shutil.rmtree(environment.site_packages / "nnunetv2_malenia")
    else:
        (environment.site_packages / "nnunetv2_malenia" / "discovery.py").write_text("this is not Python")

    done = environment.run("python", "-c", ANNOUNCED)

    assert (done.stdout.strip(), done.stderr) == ("None", "")


LOOKUP = """
import inspect
import multiprocessing

from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name


def look_up(name):
    trainer = recursive_find_trainer_class_by_name(name)
    return f"{trainer.__name__} of {inspect.getfile(trainer)}"


if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        in_worker = pool.apply_async(look_up, ["MaleniaTrainer"])
        print("here:", look_up("MaleniaTrainer"))
        print("worker:", in_worker.get())
"""


def test_nnunet_finds_the_installed_trainer_here_and_in_spawned_workers(installed, tmp_path):
    (tmp_path / "look_up.py").write_text(LOOKUP)

    lines = installed.run("python", tmp_path / "look_up.py").stdout.splitlines()

    found = f"MaleniaTrainer of {installed.site_packages / 'nnunetv2_malenia' / 'training' / 'trainer.py'}"
    assert f"here: {found}" in lines
    assert f"worker: {found}" in lines


@pytest.mark.parametrize(
    "command",
    [
        "malenia_predict_zeroshot",
        "malenia_evaluate",
        "malenia_attributes",
        "malenia_convert_msd",
        "malenia_convert_kits",
        "malenia_merge",
        "malenia_demo",
        "malenia_phantom",
    ],
)
def test_every_installed_command_explains_itself(installed, command):
    assert installed.run(command, "--help").stdout.startswith(f"usage: {command}")


def test_an_installed_command_that_fails_ends_with_status_1_and_one_line(installed):
    command = [installed.scripts / "malenia_attributes", "validate", "nowhere.json"]
    failed = subprocess.run(command, cwd=installed.root, capture_output=True, encoding="utf-8")

    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)

"""Segment every lesion type of an attribute table, seen in training or not."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.file_path_utilities import get_output_folder
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from nnunetv2_malenia.attributes.bank import EmbeddingBank, embed_phrases
from nnunetv2_malenia.attributes.plans import MaleniaPlans, is_rival
from nnunetv2_malenia.attributes.schema import ASPECTS, AttributeTable, LesionQuery, file_name, has_laterality
from nnunetv2_malenia.attributes.tables import clinical_knowledge_table, queries
from nnunetv2_malenia.attributes.text_encoder import TextEncoder, minilm_encoder
from nnunetv2_malenia.inference.export import export_case, write_json
from nnunetv2_malenia.inference.sliding_window import QueryLabelManager, QueryNetwork
from nnunetv2_malenia.network.mirroring import axes_without_left_right


class PredictionError(ValueError):
    """A model or an input that cannot be used; the message is one line: what is wrong, where, what to do."""


def set_up_device(name: str) -> torch.device:
    """The device, with threads set as nnUNetv2_predict sets them. Raises PredictionError if there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise PredictionError("no CUDA device was found; choose another with -device cpu or -device mps")
    if name == "cpu":
        torch.set_num_threads(multiprocessing.cpu_count())
    elif name == "cuda":
        torch.set_num_threads(1)
        torch.set_num_interop_threads(1)
    return torch.device(name)


def model_folder(dataset: str, trainer: str, plans: str, configuration: str) -> Path:
    """nnU-Net's folder for a trained model. Raises PredictionError when nnUNet_results does not have it."""
    if not nnUNet_results.is_set():
        raise PredictionError("nnUNet_results is not set; export it, or give the model folder with -m")
    try:
        folder = Path(get_output_folder(dataset, trainer, plans, configuration))
    except RuntimeError as error:
        raise PredictionError(f"data set {dataset}: {error}") from error
    if not folder.is_dir():
        raise PredictionError(f"{folder} does not exist; train it, or check -d, -tr, -p and -c")
    return folder


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint without unpickling code. Raises PredictionError."""
    if not path.is_file():
        raise PredictionError(f"{path} does not exist; train that fold first, or name the folds that exist with -f")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise PredictionError(
            f"{path} cannot be read as plain weights ({type(error).__name__}); it is damaged or not a checkpoint of a "
            "MaleniaTrainer"
        ) from error


def find_folds(model_folder: Path, checkpoint_name: str) -> list[str]:
    """Folds of a model folder that hold the checkpoint, in order; `all` only if there is no other."""
    found = sorted(path.parent.name.removeprefix("fold_") for path in model_folder.glob(f"fold_*/{checkpoint_name}"))
    return [fold for fold in found if fold != "all"] or found


def find_cases(source: Path, file_ending: str, num_channels: int) -> dict[str, list[str]]:
    """Case id -> one file a channel, from a folder or a single file.

    nnU-Net's names (CASE_0000.nii.gz, ...) are taken as they are; with one channel, so are plain ones (CASE.nii.gz).
    Raises PredictionError for a folder without images, a missing channel or two files of one case.
    """
    if not source.exists():
        raise PredictionError(f"{source} does not exist; -i takes a folder of images or one image")
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    files = [file for file in files if file.name.endswith(file_ending) and not file.name.startswith(".")]
    if not files:
        raise PredictionError(f"{source} holds no {file_ending} file; the model was trained on {file_ending} images")
    cases: dict[str, dict[int, str]] = {}
    for file in files:
        stem = file.name.removesuffix(file_ending)
        name, _, digits = stem.rpartition("_")
        numbered = bool(name) and len(digits) == 4 and digits.isdigit()
        if not numbered and num_channels > 1:
            raise PredictionError(f"{file} lacks a channel number; name it like {stem}_0000{file_ending}")
        case_id, channel = (name, int(digits)) if numbered else (stem, 0)
        if channel in cases.setdefault(case_id, {}):
            raise PredictionError(f"{file} and {cases[case_id][channel]} are the same case {case_id}; keep one of them")
        cases[case_id][channel] = str(file)
    for case_id, channels in cases.items():
        if sorted(channels) != list(range(num_channels)):
            raise PredictionError(
                f"{source}: case {case_id} has channels {sorted(channels)}, the model needs {list(range(num_channels))}"
            )
    return {case_id: [channels[i] for i in range(num_channels)] for case_id, channels in cases.items()}


def is_seen(name: str, plans: MaleniaPlans) -> bool:
    """Whether a lesion type, by name or alias, was among the training labels."""
    table = clinical_knowledge_table()
    names = {name.lower(), table.find(name)}
    return any(label.lower() in names or table.find(label) in names - {None} for label in plans.lesions)


class MaleniaPredictor(nnUNetPredictor):
    """nnU-Net's predictor, with an attribute table in place of the training labels."""

    def initialize_from_trained_model_folder(
        self,
        model_training_output_dir: str,
        use_folds: Sequence[int | str] | None,
        checkpoint_name: str = "checkpoint_final.pth",
    ) -> None:
        """nnU-Net 2.8's method with checkpoints read as plain weights.

        Raises PredictionError when the folder is not of a MaleniaTrainer or holds no trained fold.
        """
        folder = Path(model_training_output_dir)
        for name in ("plans.json", "dataset.json"):
            if not (folder / name).is_file():
                raise PredictionError(f"{folder / name} does not exist; -m takes a folder that nnUNetv2_train made")
        plans = load_json(str(folder / "plans.json"))
        if "malenia" not in plans:
            raise PredictionError(f"{folder} was not trained with a MaleniaTrainer; use nnUNetv2_predict for it")
        folds = list(use_folds) if use_folds is not None else find_folds(folder, checkpoint_name)
        if not folds:
            raise PredictionError(f"{folder} has no fold_X/{checkpoint_name}; train one first, or choose -chk")
        checkpoints = [load_checkpoint(folder / f"fold_{fold}" / checkpoint_name) for fold in folds]
        self.malenia_plans = MaleniaPlans.model_validate(plans["malenia"])
        self.model_folder, self.folds = folder, folds
        self.plans_manager = PlansManager(plans)
        self.dataset_json = load_json(str(folder / "dataset.json"))
        self.trainer_name = checkpoints[0]["trainer_name"]
        self.configuration_manager = self.plans_manager.get_configuration(checkpoints[0]["init_args"]["configuration"])
        self.allowed_mirroring_axes = checkpoints[0]["inference_allowed_mirroring_axes"]
        self.list_of_parameters = [checkpoint["network_weights"] for checkpoint in checkpoints]
        self.label_manager = self.plans_manager.get_label_manager(self.dataset_json)
        self.num_channels = determine_num_input_channels(
            self.plans_manager, self.configuration_manager, self.dataset_json
        )
        self.network = recursive_find_trainer_class_by_name(self.trainer_name).build_network_architecture(
            self.plans_manager,
            self.configuration_manager,
            self.num_channels,
            self.label_manager.num_segmentation_heads,
            enable_deep_supervision=False,
        )
        self.network.load_state_dict(self.list_of_parameters[0])

    def ask(self, table: AttributeTable, encoder: Callable[[], TextEncoder] = minilm_encoder) -> None:
        """Set the questions: one query for each lesion type of the table, in its order.

        The model's own vectors answer for every phrase that it has stored; `encoder` is built for the others, and must
        be the one that the model was trained with. Raises PredictionError for two types with one file name.
        """
        self.queries: list[LesionQuery] = queries(table)
        names = [file_name(query.name).lower() for query in self.queries]
        for name in names:
            if names.count(name) > 1:
                clash = [query.name for query, other in zip(self.queries, names, strict=True) if other == name]
                raise PredictionError(f"lesion types {clash} would be written to one file {name}; rename one of them")
        self.seen = [is_seen(query.name, self.malenia_plans) for query in self.queries]
        stored = EmbeddingBank(
            phrases=self.malenia_plans.phrases,
            vectors=self.network.phrase_vectors.numpy(),
            fingerprint=self.malenia_plans.encoder,
        )
        asked = [list(query.attributes.phrases()) for query in self.queries]
        trained = self.malenia_plans.trained_phrases()  # what an asked phrase is weighed against
        needed = dict.fromkeys([*trained, *(phrase for phrases in asked for phrase in phrases)])
        bank = embed_phrases(list(needed), stored, encoder)
        asked_and_rival = [
            [(phrase in phrases, phrase in trained and is_rival(phrase, phrases)) for phrase in bank.phrases]
            for phrases in asked
        ]
        is_asked, speaks_against = torch.tensor(asked_and_rival, dtype=torch.bool).unbind(-1)
        aspects = torch.tensor([ASPECTS.index(aspect) for aspect, _ in bank.phrases], dtype=torch.int64)
        if has_laterality(query.attributes for query in self.queries) and self.allowed_mirroring_axes is not None:
            reader = self.plans_manager.image_reader_writer_class.__name__
            self.allowed_mirroring_axes = (
                axes_without_left_right(self.allowed_mirroring_axes, reader, self.plans_manager.transpose_forward)
                or None
            )
        vectors = torch.from_numpy(np.array(bank.vectors))
        self.network = QueryNetwork(self.network, vectors, aspects, is_asked, speaks_against)
        self.label_manager = QueryLabelManager(len(self.queries))

    def predict_cases(
        self,
        source: Path,
        output_folder: Path,
        *,
        save_masks: bool = False,
        num_processes_preprocessing: int = 3,
        num_processes_export: int = 3,
    ) -> list[str]:
        """Answer the queries for each case of `source` and write the results -> case ids.

        The model is loaded once; images are preprocessed and results exported in nnU-Net's background processes.
        """
        ending = self.dataset_json["file_ending"]
        cases = find_cases(source, ending, self.num_channels)
        output_folder.mkdir(parents=True, exist_ok=True)
        write_json(output_folder / "queries.json", {
            "queries": [
                {"id": i + 1, "name": query.name, "seen_in_training": seen,
                 "attributes": {aspect: list(values) for aspect, values in query.attributes.stated.items()}}
                for i, (query, seen) in enumerate(zip(self.queries, self.seen, strict=True))
            ],
        })  # fmt: skip
        write_json(
            output_folder / "run.json",
            {
                "model_folder": str(self.model_folder.resolve()),
                "trainer": self.trainer_name,
                "folds": [str(fold) for fold in self.folds],
                "text_encoder": self.malenia_plans.encoder,
                "tile_step_size": self.tile_step_size,
                "mirroring_axes": list(self.allowed_mirroring_axes or ()) if self.use_mirroring else [],
                "device": self.device.type,
                "versions": {name: version(name) for name in ("nnunetv2_malenia", "nnunetv2", "torch")},
            },
        )
        items = self._internal_get_data_iterator_from_lists_of_filenames(
            list(cases.values()), [None] * len(cases), list(cases), num_processes_preprocessing
        )
        with multiprocessing.get_context("spawn").Pool(num_processes_export) as pool:
            pending = []
            for item in tqdm(items, total=len(cases), desc="cases", disable=not self.allow_tqdm):
                logits = self.predict_logits_from_preprocessed_data(item["data"]).cpu().numpy()
                pending.append(pool.apply_async(export_case, (
                    logits, item["data_properties"], self.configuration_manager, self.plans_manager, self.queries,
                    self.seen, output_folder, item["ofile"], ending, save_masks,
                )))  # fmt: skip
            for job in tqdm(pending, desc="files", disable=not self.allow_tqdm):
                job.get()
        return list(cases)

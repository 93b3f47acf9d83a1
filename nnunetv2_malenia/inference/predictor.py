"""Segment every lesion type of an attribute table, seen in training or not."""

from __future__ import annotations

import copy
import io
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext, redirect_stdout
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from pydantic import ValidationError
from tqdm import tqdm

from nnunetv2_malenia.attributes.asking import ANY_LESION
from nnunetv2_malenia.attributes.bank import EmbeddingBank, embed_phrases
from nnunetv2_malenia.attributes.plans import MaleniaPlans
from nnunetv2_malenia.attributes.schema import ASPECTS, AttributeTable, LesionQuery, has_laterality
from nnunetv2_malenia.attributes.tables import queries
from nnunetv2_malenia.attributes.text_encoder import TextEncoder, minilm_encoder
from nnunetv2_malenia.files import OutputFolder, json_text, sha256_of
from nnunetv2_malenia.inference.answers import CaseAnswers
from nnunetv2_malenia.inference.batch import answer_cases
from nnunetv2_malenia.inference.cases import check_output_folder, files_of, find_cases
from nnunetv2_malenia.inference.dicom_seg import check_dicom_seg
from nnunetv2_malenia.inference.export import CaseExport, OutputOptions
from nnunetv2_malenia.inference.interpretation import make_interpreter
from nnunetv2_malenia.inference.model_folder import (
    PredictionError,
    best_device,
    check_architecture,
    checkpoint_file,
    find_folds,
    find_model,
    load_checkpoint,
    read_model_json,
)
from nnunetv2_malenia.inference.prediction import Prediction, predict_images
from nnunetv2_malenia.inference.preparation import Preparation
from nnunetv2_malenia.inference.questions import check_file_names, is_seen, queries_content, query_tensors
from nnunetv2_malenia.inference.reading import SimilarityMap, read_similarity
from nnunetv2_malenia.inference.run_record import (
    RunFiles,
    RunRecord,
    check_no_other_questions,
    now,
    own_names,
    skipped,
    standing_answer,
)
from nnunetv2_malenia.inference.sliding_window import LOGIT_EPS, QueryLabelManager, QueryNetwork
from nnunetv2_malenia.network.malenia_net import MaleniaNet
from nnunetv2_malenia.network.mirroring import axes_without_left_right

_log = logging.getLogger(__name__)
QUERIES = "queries.json"
NOTHING = -math.log(1 / LOGIT_EPS - 1)  # the least logit that the network gives
# what nnU-Net, pydantic and torch raise for plans, data set and weights that do not belong together
_DAMAGED = (AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValidationError)


class MaleniaPredictor(nnUNetPredictor):
    """nnU-Net's predictor, with an attribute table in place of the training labels."""

    @classmethod
    def from_model_folder(
        cls,
        folder: Path | str,
        *,
        folds: Sequence[int | str] | None = None,
        checkpoint_name: str = "checkpoint_final.pth",
        device: str | torch.device | None = None,
        tile_step_size: float = 0.5,
        use_mirroring: bool = True,
        show_progress: bool = False,
    ) -> MaleniaPredictor:
        """A predictor with the model of a folder that nnUNetv2_train made, or a shipped one by its name, such as
        "phantom"; folds: to ensemble, None for all; device: None for CUDA, else MPS, else the CPU.

        Raises PredictionError when the folder is not of a MaleniaTrainer or holds no trained fold, or no shipped model
        has that name.
        """
        with redirect_stdout(io.StringIO()):  # what nnU-Net says on the CPU, whatever it is asked
            predictor = cls(
                tile_step_size=tile_step_size,
                use_mirroring=use_mirroring,
                device=best_device() if device is None else torch.device(device),
                allow_tqdm=show_progress,
            )
        predictor.initialize_from_trained_model_folder(str(find_model(folder)), folds, checkpoint_name)
        return predictor

    def initialize_from_trained_model_folder(
        self,
        model_training_output_dir: str,
        use_folds: Sequence[int | str] | None,
        checkpoint_name: str = "checkpoint_final.pth",
    ) -> None:
        """nnU-Net 2.8's method with checkpoints read as plain weights, those that ship too.

        Raises PredictionError when the folder is not of a MaleniaTrainer or holds no trained fold.
        """
        folder = Path(model_training_output_dir)
        plans, dataset_json = (read_model_json(folder, name) for name in ("plans.json", "dataset.json"))
        if "malenia" not in plans:
            raise PredictionError(f"{folder} was not trained with a MaleniaTrainer; use nnUNetv2_predict for it")
        folds = list(use_folds) if use_folds is not None else find_folds(folder, checkpoint_name)
        if not folds:
            raise PredictionError(f"{folder} has no fold_X/{checkpoint_name}; train one first, or choose -chk")
        paths = [checkpoint_file(folder, fold, checkpoint_name) for fold in folds]
        checkpoints = [load_checkpoint(path) for path in paths]
        self.perform_everything_on_device = False  # or nnU-Net would take every RuntimeError for lack of memory
        self.model_folder = folder
        self.model_files = {
            path.relative_to(folder).as_posix(): sha256_of(path) for path in (folder / "plans.json", *paths)
        }
        try:
            check_architecture(plans, folder / "plans.json")
            self._build_network(plans, dataset_json, checkpoints)
        except _DAMAGED as error:
            why = " ".join(str(error).split())[:200]
            raise PredictionError(
                f"{folder}: plans, dataset.json and weights do not make a network ({type(error).__name__}: {why}); the "
                "folder is damaged, or of another version"
            ) from error

    def _build_network(self, plans: dict, dataset_json: dict, checkpoints: Sequence[dict]) -> None:
        self.malenia_plans = MaleniaPlans.model_validate(plans["malenia"])
        self.plans_manager, self.dataset_json = PlansManager(plans), dataset_json
        self.trainer_name = checkpoints[0]["trainer_name"]
        self.configuration_manager = self.plans_manager.get_configuration(checkpoints[0]["init_args"]["configuration"])
        _ = self.plans_manager.image_reader_writer_class  # looked up by its name
        self.trained_mirroring_axes = checkpoints[0]["inference_allowed_mirroring_axes"]
        self.list_of_parameters = [checkpoint["network_weights"] for checkpoint in checkpoints]
        self.label_manager = self.plans_manager.get_label_manager(self.dataset_json)
        self.num_channels = determine_num_input_channels(
            self.plans_manager, self.configuration_manager, self.dataset_json
        )
        with redirect_stdout(io.StringIO()):  # where nnU-Net looked for it
            trainer = recursive_find_trainer_class_by_name(self.trainer_name)
        self.net = trainer.build_network_architecture(
            self.plans_manager,
            self.configuration_manager,
            self.num_channels,
            self.label_manager.num_segmentation_heads,
            enable_deep_supervision=False,
        )
        for weights in reversed(self.list_of_parameters):  # each must fit; the first stays
            self.net.load_state_dict(weights)

    def ask(
        self,
        questions: AttributeTable | Sequence[LesionQuery],
        encoder: Callable[[], TextEncoder] = minilm_encoder,
    ) -> None:
        """Set the questions: queries, or one for each lesion type of a table, in its order.

        The model's own vectors answer for every phrase that it has stored; `encoder` is built for the others, and must
        be the one that the model was trained with. Raises PredictionError for two types with one file name.
        """
        asked = queries(questions) if isinstance(questions, AttributeTable) else list(questions)
        check_file_names(asked)
        is_open = [not query.attributes.stated for query in asked]
        seen = [None if o else is_seen(q.name, self.malenia_plans) for q, o in zip(asked, is_open, strict=True)]
        self._ask(asked, seen, encoder)
        self.discovers = False

    def discover(self) -> None:
        """Ask for nothing in particular: find lesions of any type, tell them apart, read and name each."""
        self._ask([ANY_LESION], [None], minilm_encoder)
        self.discovers = True

    def _ask(self, asked: list[LesionQuery], seen: list[bool | None], encoder: Callable[[], TextEncoder]) -> None:
        self.queries, self.seen = asked, seen
        stored = EmbeddingBank(
            phrases=self.malenia_plans.phrases,
            vectors=self.net.phrase_vectors.cpu().numpy(),
            fingerprint=self.malenia_plans.encoder,
        )
        needed = dict.fromkeys(
            [*self.malenia_plans.phrases, *(phrase for query in asked for phrase in query.attributes.phrases())]
        )
        self.bank = embed_phrases(list(needed), stored, encoder)
        self.network = QueryNetwork(self.net, *query_tensors(self.queries, self.malenia_plans, self.bank, encoder))
        self.label_manager = QueryLabelManager(len(self.queries) + 1)
        self.allowed_mirroring_axes = self.trained_mirroring_axes
        if has_laterality(query.attributes for query in self.queries) and self.trained_mirroring_axes is not None:
            reader = self.plans_manager.image_reader_writer_class.__name__
            self.allowed_mirroring_axes = (
                axes_without_left_right(self.trained_mirroring_axes, reader, self.plans_manager.transpose_forward)
                or None
            )

    def predict(
        self,
        image: Path | str | np.ndarray | Sequence[Path | str | np.ndarray],
        attributes: AttributeTable | None = None,
        *,
        affine: np.ndarray | None = None,
        options: OutputOptions = OutputOptions(),  # noqa: B008 - frozen
    ) -> Prediction:
        """Ask for the lesion types of a table in one image, or without a table discover what is there.

        Of `options`, threshold and min_volume_ml count.

        image: a file or DICOM folder, or an array (X, Y, Z) with its affine (4, 4), x, y, z to RAS millimetres, both as
        nibabel gives them; a sequence of these, one a channel, for models that need several. Raises InputError for an
        image that cannot be used, and what `ask` raises.
        """
        self.discover() if attributes is None else self.ask(attributes)
        images = [image] if isinstance(image, (str, Path, np.ndarray)) else list(image)
        return predict_images(self, images, affine, options)

    @torch.inference_mode()
    def say(self, image: torch.Tensor, threshold: float) -> tuple[torch.Tensor, SimilarityMap]:
        """What the network says of a preprocessed image (C, Z, Y, X): logits (Q + 1, Z, Y, X), the last for any lesion,
        and the similarities where one of them exceeds the threshold."""
        logits = self.predict_logits_from_preprocessed_data(image).cpu()
        mask = logits.amax(0) > torch.logit(torch.tensor(threshold, dtype=torch.float64))
        self.net.to(self.device)
        vectors = torch.from_numpy(np.array(self.bank.vectors))
        aspects = torch.tensor([ASPECTS.index(aspect) for aspect, _ in self.bank.phrases])
        patch_size = self.configuration_manager.patch_size
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
            return logits, read_similarity(self._each_fold(), (vectors, aspects), image, mask, patch_size)

    def _internal_predict_sliding_window_return_logits(
        self, data: torch.Tensor, slicers: list, do_on_device: bool = True
    ) -> torch.Tensor:
        """nnU-Net 2.8's; for lack of memory, accumulators go to the CPU, then fewer queries are asked at once.

        data (C, Z, Y, X) -> logits (Q + 1, Z, Y, X), the same however many attempts it took. Tiles of one value,
        as in the air around a patient, do not reach the network, and what lies in no other tile is NOTHING. Raises
        OutOfMemoryError where there is not even memory for one query, and every other error at the first attempt.
        """
        channels = self.label_manager.num_segmentation_heads
        shown = [tile for tile in slicers if data[tile].amax() > data[tile].amin()]
        if not shown:
            return torch.full((channels, *data.shape[1:]), NOTHING, dtype=torch.half)
        attempts = [(False, min(2**i, channels)) for i in range((channels - 1).bit_length() + 1)]
        if self.device.type == "cuda":
            attempts.insert(0, (True, 1))
        for on_device, parts in attempts:
            try:
                logits = self._predict_by_parts(data, shown, on_device, parts)
                return logits if len(shown) == len(slicers) else _without(logits, shown)
            except torch.OutOfMemoryError as error:
                if (on_device, parts) == attempts[-1]:
                    raise
                _log.warning("%s; trying again, slower, with less memory", str(error).partition(".")[0])

    def _predict_by_parts(self, data: torch.Tensor, slicers: list, on_device: bool, parts: int) -> torch.Tensor:
        """The network's channels in so many passes."""
        whole, logits = self.label_manager, []
        try:
            for rows in np.array_split(np.arange(whole.num_segmentation_heads), parts):
                self.network.rows, self.label_manager = slice(rows[0], rows[-1] + 1), QueryLabelManager(len(rows))
                logits.append(super()._internal_predict_sliding_window_return_logits(data, slicers, on_device))
        finally:
            self.network.rows, self.label_manager = slice(None), whole
        return torch.cat(logits) if parts > 1 else logits[0]

    def _each_fold(self) -> Iterator[MaleniaNet]:
        for weights in self.list_of_parameters:
            self.net.load_state_dict(weights)
            yield self.net.eval()

    def case_answers(self, options: OutputOptions) -> CaseAnswers:
        """How what the network says becomes answers to what is asked now."""
        gates = [copy.deepcopy(net.dense_gate).cpu().requires_grad_(False) for net in self._each_fold()]
        interpreter = make_interpreter(self.queries, self.bank.phrases, self.malenia_plans, gates)
        return CaseAnswers(self.plans_manager, self.configuration_manager, self.queries, self.seen, interpreter,
                           self.discovers, options.threshold, options.min_volume_ml)  # fmt: skip

    @property
    def preparation(self) -> Preparation:
        names_side = has_laterality(query.attributes for query in self.queries)
        return Preparation(
            self.plans_manager, self.configuration_manager, self.dataset_json, self.num_channels, names_side
        )

    def settings(self, options: OutputOptions) -> dict[str, Any]:
        """All that an answer depends on, but for the image: what is asked, of which weights, and how."""
        return {
            "trainer": self.trainer_name,
            "model_files_sha256": self.model_files,
            "text_encoder": self.malenia_plans.encoder,
            "tile_step_size": self.tile_step_size,
            "mirroring_axes": list(self.allowed_mirroring_axes or ()) if self.use_mirroring else [],
            "discovers": self.discovers,
            "queries": [query.model_dump(mode="json") for query in self.queries],
            "options": asdict(options),
            "versions": {name: version(name) for name in ("nnunetv2_malenia", "nnunetv2")},
        }

    def predict_cases(
        self,
        source: Path,
        output_folder: Path,
        options: OutputOptions = OutputOptions(),  # noqa: B008 - frozen
        *,
        continue_prediction: bool = False,
        overwrite: bool = False,
        writes_report: bool = False,
        reads: Sequence[Path] = (),
        num_parts: int = 1,
        part_id: int = 0,
        num_processes_preprocessing: int = 3,
        num_processes_export: int = 3,
        arguments: Mapping[str, Any] | None = None,
    ) -> RunRecord:
        """Answer the queries for each case of `source` and write the results; what each case came to is returned.

        continue_prediction: keep answers of an earlier run that still hold. overwrite: replace files that no run of
        ours wrote, where results would go; images never, nor the other files that the caller `reads`. writes_report:
        `report.html.write_report` comes afterwards. Of num_parts runs side by side, this is number part_id, from 0.
        arguments: for run.json, as the user gave them. A case that fails does not stop the others. Raises, with nothing
        written, PredictionError when source or output folder cannot be meant, and MaleniaError when a file that is not
        ours is where a result would go.
        """
        ending = self.dataset_json["file_ending"]
        found = find_cases(source, ending, self.num_channels)
        check_output_folder(output_folder, source)
        if options.save_dicom_seg:
            check_dicom_seg(found.files)
        check_no_other_questions(output_folder, list(found.files), [query.name for query in self.queries])
        record = RunRecord(
            model_folder=str(self.model_folder.resolve()),
            settings=self.settings(options),
            arguments=dict(arguments or {}),
            device=self.device.type,
            part_id=part_id,
            num_parts=num_parts,
            ignored_files=found.ignored,
            started=now(),
        )
        todo = dict(list(found.files.items())[part_id::num_parts])
        standing = {}
        if continue_prediction:
            earlier = ((id_, standing_answer(output_folder, id_, todo[id_], record.asked_sha256)) for id_ in todo)
            standing = {case_id: findings for case_id, findings in earlier if findings}
            todo = {case_id: channels for case_id, channels in todo.items() if case_id not in standing}
        outputs = OutputFolder(output_folder, record.part)
        results = [name for case_id in todo for name in options.file_names(case_id, ending, self.queries)]
        own = own_names(record.part)[: 3 if writes_report else 2]
        outputs.claim([QUERIES, *own, *results], [*files_of(found.files), *reads], overwrite=overwrite)
        with closing(outputs):
            outputs.open()
            outputs.write_text(QUERIES, json_text(queries_content(self.queries, self.seen)))
            files = RunFiles(outputs, record)
            for case_id, findings in standing.items():
                files.add(case_id, skipped(findings), findings)
            answered = answer_cases(
                todo,
                self.preparation,
                lambda image: self.say(image, options.threshold),
                CaseExport(self.case_answers(options), options, outputs.staging, ending, record.asked_sha256),
                files,
                num_processes_preprocessing=num_processes_preprocessing,
                num_processes_export=num_processes_export,
            )
            for _ in tqdm(answered, total=len(todo), desc="cases", disable=not self.allow_tqdm):
                pass
            files.finish()
        return record


def _without(logits: torch.Tensor, shown: Sequence[tuple[slice, ...]]) -> torch.Tensor:
    """Logits (Q + 1, Z, Y, X), NOTHING where no tile was shown to the network."""
    covered = torch.zeros(logits.shape[1:], dtype=torch.bool, device=logits.device)
    for tile in shown:
        covered[tile[1:]] = True
    return torch.where(covered, logits, NOTHING)

"""What a trained row reads under reference masks, so that no lesion is missed and no border is wrong."""

from __future__ import annotations

from types import SimpleNamespace

import cc3d
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.aspects.answers import Phantoms
from benchmarks.aspects.pairing import Drawn
from benchmarks.zero_shot.experiment import Experiment
from nnunetv2_malenia.attributes.schema import ASPECTS
from nnunetv2_malenia.evaluation.metrics import CONNECTIVITY
from nnunetv2_malenia.evaluation.volumes import find_volume
from nnunetv2_malenia.inference.answers import mean_similarity
from nnunetv2_malenia.inference.cases import find_cases
from nnunetv2_malenia.inference.export import OutputOptions
from nnunetv2_malenia.inference.predictor import MaleniaPredictor
from nnunetv2_malenia.inference.reading import read_similarity
from nnunetv2_malenia.network.malenia_net import MaleniaNet, MaleniaOutput, Queries

CERTAIN = 8.0  # log-odds


class ToldNet(nn.Module):
    """A MaleniaNet that is told where lesions are, as the image's last channel, 0 or 1, in place of its own answer."""

    def __init__(self, net: MaleniaNet) -> None:
        super().__init__()
        self.net = net
        net.lesion_head.register_forward_hook(lambda *_: self.told)
        net.coarse_lesion_head.register_forward_hook(lambda *call: torch.zeros_like(call[-1]))

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.net, name)

    def forward(self, x: Tensor, queries: Queries) -> MaleniaOutput:
        self.told = (2 * x[:, -1:] - 1) * CERTAIN
        return self.net(x[:, :-1], queries)


@torch.inference_mode()
def read_references(experiment: Experiment, phantoms: Phantoms, *, told: bool) -> list[Drawn]:
    """Every 26-connected lesion of the references, read by the mean similarity under it; the phantoms have one channel.

    told: the network knows the references' mask, which its evidence is measured in; else it goes by its own.
    """
    table, values = phantoms.table, phantoms.values
    predictor = MaleniaPredictor.from_model_folder(experiment.model, device="cpu", use_mirroring=False)
    predictor.ask(table)
    interpreter = predictor.case_answers(OutputOptions()).interpreter
    vectors = torch.from_numpy(np.array(predictor.bank.vectors))
    aspects = torch.tensor([ASPECTS.index(aspect) for aspect, _ in predictor.bank.phrases])
    net = ToldNet(predictor.net.eval()) if told else predictor.net.eval()
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    reader, preprocessor = plans.image_reader_writer_class(), configuration.preprocessor_class(verbose=False)
    lesions = []
    for case_id, channels in find_cases(phantoms.images, predictor.dataset_json["file_ending"], 1).files.items():
        image, properties = reader.read_images([str(path) for path in channels.values()])
        reference, _ = reader.read_seg(str(find_volume(phantoms.references, case_id)))
        data, labels, properties = preprocessor.run_case_npy(
            image, reference, properties, plans, configuration, predictor.dataset_json
        )
        mask = torch.from_numpy(np.isin(labels[0], list(values.values())))
        tensor = torch.from_numpy(np.ascontiguousarray(data, np.float32))
        if told:
            tensor = torch.cat([tensor, mask[None].float()])
        reading = read_similarity([net], (vectors, aspects), tensor, mask, configuration.patch_size)
        for name, value in values.items():
            components, number = cc3d.connected_components(
                np.ascontiguousarray(reference[0] == value), connectivity=CONNECTIVITY, return_N=True
            )
            for i in range(1, number + 1):
                rows = reading.rows_at(np.argwhere(components == i), properties, plans.transpose_forward)
                mean = mean_similarity(rows, reading.similarity)
                read = mean if mean is None else SimpleNamespace(
                    aspects=interpreter.aspects(mean), diseases=interpreter.diseases(mean)
                )  # fmt: skip
                lesions.append(Drawn(name, table.attributes_of(name, case_id), read))
    return lesions

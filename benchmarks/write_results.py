"""Write docs/results.md from the stored results.

malenia_demo --train --baseline --minutes 30 --train_cases 240 --test_cases 24 -o FOLDER  (and with --minutes 60)
python benchmarks/store_demo.py FOLDER
python -m benchmarks.time_demo
python benchmarks/train_step.py
python benchmarks/bench_convert.py FOLDER_OF_MASKS
python -m benchmarks.partial_labels -o FOLDER
python -m benchmarks.report_size CT -o FOLDER
python -m benchmarks.branch_weights --types "kidney cyst" "liver tumor" -o FOLDER
python -m benchmarks.limits FOLDER
python -m benchmarks.limits.descriptions FOLDER
python -m benchmarks.write_results
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

from benchmarks.aspects.figures import over_seeds
from benchmarks.zero_shot.figures import GROUPS, cell, head
from nnunetv2_malenia.attributes.schema import ASPECTS
from nnunetv2_malenia.evaluation.summary import Statistic

HERE = Path(__file__).parent
DEFAULTS = {"minutes": 15, "seed": 0, "train_cases": 120, "test_cases": 16}  # malenia_demo --train's


def stored(name: str) -> dict:
    return json.loads((HERE / "results" / f"{name}.json").read_text())


def number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def mean(values: list[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    return number(sum(known) / len(known) if known else None, digits)


COLUMNS = {
    "DSC": ("malenia", "mean_dsc", 2),
    "NSD": ("malenia", "mean_nsd", 2),
    "presence AUC": ("malenia", "presence_auc", 2),
    "ml returned, present": ("malenia", "volume_present_ml", 1),
    "ml returned, absent": ("malenia", "volume_absent_ml", 1),
    "any-lesion DSC": ("any_lesion", "mean_dsc", 2),
    "with an oracle": ("any_lesion_oracle", "mean_dsc", 2),
}


def demo_table(results: dict) -> list[str]:
    rows = [f"| lesion type | training | cases | {' | '.join(COLUMNS)} |", "|---" * (3 + len(COLUMNS)) + "|"]
    types = results["malenia"]
    for i, row in enumerate(types):
        figures = [number(results[key][i][name], digits) for key, name, digits in COLUMNS.values()]
        seen = "seen" if row["seen"] else "unseen"
        rows.append(f"| {row['name']} | {seen} | {row['cases_present']} | {' | '.join(figures)} |")
    for is_seen in (True, False):
        group = [i for i, row in enumerate(types) if row["seen"] is is_seen]
        means = [mean([results[key][i][name] for i in group], digits) for key, name, digits in COLUMNS.values()]
        rows.append(f"| **mean, {'seen' if is_seen else 'unseen'}** | | | {' | '.join(means)} |")
    return rows


def command(results: dict) -> str:
    options = results["options"]
    given = [f" --minutes {options['minutes']}"] if options["minutes"] != DEFAULTS["minutes"] else []
    numbers = ("seed", "train_cases", "test_cases")
    given += [f" --{name} {options[name]}" for name in numbers if options[name] != DEFAULTS[name]]
    return "malenia_demo --train --baseline" + "".join(given)


def demo_section(results: dict) -> list[str]:
    options = results["options"]
    return [
        f"## `{command(results)}`: {results['epochs']} epochs of 250 steps",
        "",
        f"One run; {options['train_cases']} phantoms of seed {options['seed']}, {options['test_cases']} held out.",
        "",
        *demo_table(results),
        "",
        "Asked for one of two types that a phantom holds, the mask fits "
        + "; ".join(
            f"for {group} types the asked one better in {pairs['asked type']} of {sum(pairs.values())} pairs, the "
            f"other one in {pairs['other type']}, neither in {pairs['neither']}"
            for group, pairs in results["pairs"].items()
        )
        + ".",
        "",
    ]


def time_section(results: dict) -> list[str]:
    first, runs = results["first_run"], results["runs"]
    medians = {key: median(run[key] for run in runs) for key in first}
    return [
        "## The demo",
        "",
        f"`python -m benchmarks.time_demo`, {results['processor']}, torch {results['versions']['torch']}, commit "
        f"{results['commit']}: `malenia_demo` in an empty folder has its first mask after "
        f"{first['first_mask_s']:.0f} s and ends after {first['end_s']:.0f} s; run again, after "
        f"{medians['first_mask_s']:.0f} and {medians['end_s']:.0f} s (median of {len(runs)}).",
        "",
    ]


def partial_section(results: dict) -> list[str]:
    rows = [
        "| not drawn is | lesion type | cases | drawn there | DSC | ml found / ml there |",
        "|---" * 6 + "|",
    ]
    trainings = [key for key in ("unknown", "background") if key in results]
    found = {row["name"] for key in trainings for row in results[key] if row["volume_ratio"] > 0}
    for key in trainings:
        for row in results[key]:
            if row["name"] in found:
                figures = f"{number(row['mean_dsc'], 2)} | {number(row['volume_ratio'], 2)}"
                drawn = "yes" if row["annotated"] else "no"
                rows.append(f"| {key} | {row['name']} | {row['cases']} | {drawn} | {figures} |")
    silent = dict.fromkeys(row["name"] for row in results["unknown"] if row["name"] not in found)
    return [
        "## Partial labels",
        "",
        "`python -m benchmarks.partial_labels`: phantoms in the layouts of five MSD tasks and KiTS23, "
        f"{results['cases_per_source']} each, converted, merged and trained on for {results['epochs']} epochs, patch "
        f"{results['patch_size']}, seed {results['seed']}; asked for in training cases, of which each source drew its "
        "own types only. Every phantom holds every type.",
        "",
        *rows,
        *([] if not silent else ["", f"Neither training found {', '.join(silent)}: the run says nothing of them."]),
        "",
    ]


def convert_section(results: dict) -> list[str]:
    ways = {
        "convert_linked": "`malenia_convert_kits`, images linked",
        "convert_copied": "the same with `--copy`",
        "nnunet_converter": "nnU-Net's `convert_msd_dataset`, one process; nothing checked or counted",
        "plain_copy": "plain copy of the folder, from memory",
    }
    return [
        "## Conversion",
        "",
        f"`benchmarks/bench_convert.py`: {results['cases']} KiTS cases with images of noise, "
        f"{results['images_mb'] / results['cases']:.0f} MB each, {results['processor']}, medians of "
        f"{results['repeats']} runs, imports included. What takes the time is work on the masks: with the "
        "middle of every image overwritten the conversion took "
        f"{results['convert_linked_with_images_that_cannot_be_decompressed']['median_s_a_case']:.2f} s a case.",
        "",
        "| way | s a case | peak memory, MB | written, MB |",
        "|---" * 4 + "|",
        *(
            f"| {title} | {results[way]['median_s_a_case']:.2f} | {results[way]['peak_memory_mb']:.0f} | "
            f"{results[way]['written_mb']:.0f} |"
            for way, title in ways.items()
        ),
        "",
    ]


def report_section(results: dict) -> list[str]:
    return [
        "## Size of a report",
        "",
        f"`python -m benchmarks.report_size`: {results['cases']} CTs of {' x '.join(map(str, results['voxels_xyz']))} "
        f"voxels of {results['spacing_mm']:g} mm, {results['queries']} queries: {results['bytes'] / 1e6:.1f} MB.",
        "",
    ]


def development_section(results: dict) -> list[str]:
    """What method.md refers to; the rules that lost are not in the code any more."""
    cases, seed = results["phantoms"]["cases"], results["phantoms"]["seed"]
    groups = ("seen", "unseen")
    compared = {"DSC": ("dsc", 3), "ml present": ("ml_present", 1), "ml absent": ("ml_absent", 1),
                "silent": ("silent", 2), "AUC": ("auc", 2)}  # fmt: skip
    rules = [
        "| a component is dropped where | "
        + " | ".join(f"{group}: {title}" for group in groups for title in compared)
        + " |",
        "|---" * (1 + 2 * len(compared)) + "|",
    ]
    for row in results["whole_lesion"]:
        figures = [number(row.get(group, {}).get(key), digits) for group in groups for key, digits in compared.values()]
        rules.append(f"| {row['dropped_where']} | {' | '.join(figures)} |")
    return [
        "## Choices of the method",
        "",
        f"Measured once on development phantoms (seed {seed}; no test phantom among them, but the unseen types are), "
        "one training each; the rules that lost are not in the code any more, so no command makes these two tables "
        "again. [method.md](method.md) says what was compared.",
        "",
        "| aspects are read from | steps | phantoms | seen: DSC | let through | unseen: DSC | let through |",
        "|---" * 7 + "|",
        *(
            f"| {row['read_from']} | {row['steps']} | {row['phantoms']} | "
            + " | ".join(f"{row[group][key]:.2f}" for group in groups for key in ("dsc", "let_through"))
            + " |"
            for row in results["features_and_evidence"]
        ),
        "",
        f"Lesions as a whole, {cases} phantoms; the rule was chosen by the seen types. silent: share of the cases "
        "without a type in which at most 5 % of the ml returned where it is present is returned:",
        "",
        *rules,
        "",
    ]


def step_section(steps: list[dict]) -> list[str]:
    lines = []
    for step in steps:
        shape = " x ".join(map(str, step["patch_size"]))
        plan = f"{step['batch_size']} x {shape}, {'/'.join(map(str, step['features_per_stage']))} features"
        compiled = "compiled" if step["compiled"] else "not compiled"
        machine = f"{step['processor']}, torch {step['versions']['torch']}, {compiled}"
        seconds = " | ".join(number(step[name]["median_s"], 3) for name in ("nnUNetTrainer", "MaleniaTrainer"))
        lines.append(f"| {machine} | {plan} | {seconds} | {step['ratio_of_medians']:.2f} | {step['commit']} |")
    return [
        "## One training step",
        "",
        f"`python benchmarks/train_step.py`: median of {steps[0]['steps']} steps on the CPU and {steps[1]['steps']} on "
        "the GPU, alternating between the two trainers on the same batches; s. On a GPU, nnU-Net compiles by default "
        "(torch.compile), which takes the whole network as one graph. The GPU's figure is of before the matching and "
        "the losses of a batch were computed at once. A step of MaleniaTrainer launches thousands of small kernels, "
        "which is long beside a plain step as short as this plan's; how it is with longer ones was not measured.",
        "",
        "| machine | batch and network | nnUNetTrainer | MaleniaTrainer | ratio | commit |",
        "|---|---|---|---|---|---|",
        *lines,
        "",
    ]


def weights_section(results: dict) -> list[str]:
    rows = results["rows"]
    weights = list(dict.fromkeys(row["text_weight"] for row in rows))
    lines = []
    for title, key in (("the type left out", "dsc"), ("the types trained on", "dsc_trained")):
        for name in dict.fromkeys(row["left_out"] for row in rows):
            of_weight = {row["text_weight"]: row[key] for row in rows if row["left_out"] == name}
            lines.append(f"| {title} | {name} | {' | '.join(number(of_weight[each], 3) for each in weights)} |")
    return [
        "## Weight of the text branch",
        "",
        f"`python -m benchmarks.branch_weights`, size {results['size']}, seed {results['seed']}: MaleniaTrainer on "
        "phantoms without one of the seen types, then asked for it with other weights in the ensemble; DSC. "
        "No unseen type is looked at. Each seen type is the only one of its organ, so leaving it out leaves the organ "
        "without any lesion, and none is found in it at any weight: the weight cannot be chosen in this way.",
        "",
        f"| DSC of | left out | {' | '.join(f'{each:g}' for each in weights)} |",
        "|---" * (2 + len(weights)) + "|",
        *lines,
        "",
    ]


def descriptions_section(results: dict) -> list[str]:
    """What descriptions allow, type by type."""
    runs = results["runs"]
    rows = []
    for seen, group in GROUPS.items():
        of_group = [each["name"] for each in runs[0]["types"] if each["seen"] is seen]
        for title, names in (*((name, [name]) for name in of_group), (f"**mean, {group}**", of_group)):
            cells = [
                cell(Statistic.of(Statistic.of(each[way] for each in run["types"] if each["name"] in names).mean
                                  for run in runs), 2)
                for way in ("can_coincide", "the_same")
            ]  # fmt: skip
            rows.append(f"| {title} | {group} | {' | '.join(cells)} |")
    return [
        "## What descriptions allow",
        "",
        f"`python -m benchmarks.limits.descriptions`, size {results['size']}, held-out phantoms of seeds "
        f"{', '.join(str(run['seed']) for run in runs)}; mean ± std over seeds. Share of the cases without a type in "
        "which no lesion of another type fits its description, as it is drawn: how often a perfect reader of all "
        "lesions and aspects would be silent. Values may hold together: a lesion of fluid density in the kidney fits a "
        "kidney tumor described as hypodense.",
        "",
        *head(["lesion type", "training", "silent", "silent, if values excluded each other"]),
        *rows,
        "",
    ]


def limits_section(results: dict, aspects: dict) -> list[str]:
    """What stands in the way of aspects and diseases; `aspects`: what is read under predicted masks."""
    runs = results["runs"]
    seeds = [run["seed"] for run in runs]
    predicted = [run for run in aspects["runs"] if run["row"] == "malenia" and run["seed"] in seeds]
    groups, ways = ("seen", "unseen"), ("reference masks", "told the masks")
    forests = ("own measurements", "measurements of the same", "measurements")

    def cells(group: str, aspect: str) -> list[str]:
        read = ["aspects", aspect] if aspect != "mean" else ["mean"]
        return [
            over_seeds(predicted, ["aspects", group, *read, "accuracy"]),
            *(over_seeds(runs, [way, group, "aspects", *read, "accuracy"]) for way in ways),
            *(over_seeds(runs, [forest, group, aspect]) for forest in forests),
            over_seeds(runs, [ways[0], group, "aspects", *read, "majority"]),
        ]

    def diseases(group: str) -> list[str]:
        """Not measured, and without a majority."""
        of_query = over_seeds(predicted, ["diseases", "query", group, "top_1"])
        return [of_query, *(over_seeds(runs, [way, group, "diseases", "top_1"]) for way in ways), *["n/a"] * 4]

    def table(group: str) -> list[str]:
        rows = {**{aspect: cells(group, aspect) for aspect in ASPECTS}, "**mean**": cells(group, "mean"),
                "disease first": diseases(group)}  # fmt: skip
        measured = [over_seeds(runs, [forest, group, "lesions"]) for forest in forests]
        return [
            *head([f"{group} types", *columns]),
            *(f"| {title} | {' | '.join(row)} |" for title, row in rows.items()),
            "",
            f"Lesions a seed, measured: {', '.join(measured)}.",
            "",
        ]

    columns = ("predicted masks", "reference masks", "told these", "measured, own masks", "measured, the same lesions",
               "measured, all lesions", "majority")  # fmt: skip
    return [
        "## What stands in the way",
        "",
        f"`python -m benchmarks.limits`, size {results['size']}, seeds {', '.join(map(str, seeds))}, MaleniaTrainer, "
        f"held-out phantoms, commit {results['commit']}; mean ± std over seeds.",
        "",
        "Aspects and diseases, read under the masks of a lesion's own query (of the lesions that it found), under "
        "reference masks (of all), and by a network that is told the reference masks in place of its any-lesion head's "
        "answer. measured: a random forest of size, form, intensities, border and contact, trained on the lesions of "
        "further phantoms of seen types, which no training had; it is no part of the package. It is given the "
        "masks and organ labels that the model itself finds, in discover mode, of the lesions that these touch; or the "
        "reference's, of the same lesions and of all. majority: the one value that is right most often in all lesions. "
        "Only density, its variation and surface are "
        "read from the any-lesion answer, so only these can change when it is told.",
        "",
        *(line for group in groups for line in table(group)),
    ]


def main() -> None:
    demos = [json.loads(path.read_text()) for path in sorted((HERE / "results").glob("demo_*.json"))]
    lines = [
        "# Results",
        "",
        "Phantoms, where nothing else is said; not clinical data. This page is written by "
        "`python -m benchmarks.write_results` from `benchmarks/results/`.",
        "",
        "DSC: mean over the cases that hold the type. The any-lesion network is a plain nnU-Net of the same plan, "
        "optimiser, sampling and number of steps, trained on one label for all seen lesion types; its one mask is "
        "scored against every type, as it is and after an oracle took away what lies on lesions of other types. Where "
        "the two columns of ml are alike, the answer does not depend on the query. "
        "The network's design was chosen on development phantoms of seed 777, which hold the unseen types too; the "
        "weights of the two branches (0.2 and 0.8) are an earlier model's. One training seed each: directions, no "
        "claims.",
        "",
        *time_section(stored("time_demo")),
        *(line for demo in sorted(demos, key=lambda results: results["epochs"]) for line in demo_section(demo)),
        *partial_section(stored("partial_labels")),
        *step_section([stored("train_step_cpu_demo"), stored("train_step_cuda")]),
        *convert_section(stored("convert_kits")),
        *report_section(stored("report_size")),
        *development_section(stored("development")),
        *weights_section(stored("branch_weights")),
        *limits_section(stored("limits_small"), stored("aspects_small")),
        *descriptions_section(stored("descriptions_small")),
    ]
    (HERE.parent / "docs" / "results.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()

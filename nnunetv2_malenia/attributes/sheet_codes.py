"""What the published annotation workbook's sheets, columns and codes mean."""

import re
from typing import NamedTuple

Codes = dict[int, str]


class SheetCodes(NamedTuple):
    """One lesion type's sheet: its title in the published workbook, and per aspect code -> vocabulary value."""

    title: str
    codes: dict[str, Codes]


def _codes(*locations: str, density: Codes | None = None) -> dict[str, Codes]:
    """Only location and density are coded differently from sheet to sheet. In the order of ASPECTS."""
    return {
        "location": dict(enumerate(locations, start=1)),
        "shape": {1: "round-like", 2: "irregular"},
        "density": density or {1: "hypodense", 2: "isodense", 3: "hyperdense"},
        "density_variation": {1: "homogeneous", 2: "heterogeneous"},
        "enhancement": {1: "non-contrast ct", 2: "contrast-enhanced ct"},
        "surface": {1: "well-defined", 2: "ill-defined"},
        "relationship": {
            1: "no close relationship with surrounding organs",
            2: "close relationship with surrounding organs",
        },
    }


_KIDNEY = _codes("left kidney", "right kidney")
_LIVER = _codes("left liver lobe", "right liver lobe")
_PANCREAS = _codes("pancreas head", "pancreas body", "pancreas tail")
_COLON = _codes("ascending colon", "transverse colon", "descending colon", "sigmoid colon", "rectum")
# The lung's sheet compares with soft tissue, not with the parenchyma, which is mostly air: see docs/attributes.md.
_LUNG = _codes(
    "left upper lung lobe",
    "left lower lung lobe",
    "right upper lung lobe",
    "right middle lung lobe",
    "right lower lung lobe",
    density={1: "ground-glass density", 2: "soft-tissue density", 3: "hyperdense", 4: "mixed density"},
)

SHEETS: dict[str, SheetCodes] = {
    "kidney tumor": SheetCodes("肾癌", _KIDNEY),
    "kidney cyst": SheetCodes("肾囊肿", _KIDNEY),
    "liver tumor": SheetCodes("肝癌", _LIVER),
    "pancreas tumor": SheetCodes("胰腺癌", _PANCREAS),
    "pancreas cyst": SheetCodes("胰腺囊肿", _PANCREAS),
    "colon tumor": SheetCodes("结肠癌", _COLON),
    "lung tumor": SheetCodes("肺癌", _LUNG),
}
CODED_ASPECTS: tuple[str, ...] = tuple(_KIDNEY)
CASE, REPORT = "case", "report"

# How a column's header begins, after its number. The Chinese ones are the published workbook's.
_HEADERS = {
    CASE: r"id\b|case",
    "enhancement": r"增强|enhancement|contrast",
    "location": r"病灶部位|location|site",
    "shape": r"形状|shape",
    "density_variation": r"亮度变化|density[ _-]variation|variation|homogeneity|heterogeneity",
    "density": r"病灶大部分区域|density|attenuation",
    "surface": r"表面|surface|margin|border",
    "relationship": r"与周围器官关系|relation",
    REPORT: r"病灶的影像学|report|text|description",
}


def column_of_header(header: object) -> str | None:
    """The aspect that a header stands for, or "case" or "report"; None for any other cell."""
    text = re.sub(r"^\W*\d*\W*", "", str(header or "").lower())
    return next((name for name, begins in _HEADERS.items() if re.match(begins, text)), None)

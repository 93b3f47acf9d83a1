"""The words of reports: which phrase states which value. What the vocabulary lists is understood without an entry here.

In these patterns a space stands for any run of spaces and hyphens, a hyphen for an optional one, and `~` for up to five
words in between. Where two patterns overlap in a text, the longer match counts, so that "hypodense areas" says nothing
about the density of the lesion.
"""

Value = tuple[str, str]
Phrases = list[tuple[list[Value], list[str]]]

CLOSE = "close relationship with surrounding organs"
NOT_CLOSE = "no close relationship with surrounding organs"
CLOSE_TO_VESSELS = "close relationship with vessels"
CLOSE_TO_PLEURA = "close relationship with the pleura"
INVASION = "invasion of surrounding organs"
WITH_CONTRAST = "contrast-enhanced ct"
NO_ENHANCEMENT = "no enhancement"

# What a denied value states; a value that is not here states nothing when it is denied.
OPPOSITES: dict[Value, Value] = {
    ("surface", "well-defined"): ("surface", "ill-defined"),
    ("surface", "ill-defined"): ("surface", "well-defined"),
    ("density_variation", "homogeneous"): ("density_variation", "heterogeneous"),
    ("density_variation", "heterogeneous"): ("density_variation", "homogeneous"),
    ("relationship", CLOSE): ("relationship", NOT_CLOSE),
    ("relationship", NOT_CLOSE): ("relationship", CLOSE),
    ("shape", "round-like"): ("shape", "irregular"),
    **{
        ("enhancement", f"{strength} enhancement"): ("enhancement", NO_ENHANCEMENT)
        for strength in ("mild", "moderate", "marked")
    },
}


_MARGIN = (
    r"(?:margins?|borders?|boundar(?:y|ies)|edges?|outlines?|interfaces?|demarcations?|separation|delineation|"
    r"circumscription|(?:tumou?r|lesion) surface)"
)
_WELL_DEFINED = (
    r"(?:(?:well|sharply|clearly|distinctly|smoothly) "
    r"(?:defined|circumscribed|demarcated|marginated|margined|delineated|delimited|bounded)|circumscribed|clear cut)"
)
_ILL_DEFINED = (
    r"(?:(?:ill|poorly|badly|vaguely|indistinctly|incompletely) "
    r"(?:defined|circumscribed|demarcated|marginated|margined|delineated|delimited|bounded))"
)
_SHARP = rf"(?:{_WELL_DEFINED}|clear|sharp|distinct|definite|crisp|smooth|well visuali[sz]ed)"
_BLURRED = (
    rf"(?:{_ILL_DEFINED}|unclear|indistinct|blurr(?:ed|y)|fuzzy|hazy|obscured?|vague|indefinite|"
    rf"infiltrative|infiltrating)"
)
_ADVERB = r"(?:\w+ly |rather |somewhat |quite |well )?"
_TOWARDS = r"(?: (?:with|from|of|to|between)(?: (?!(?:is|are|with|but|which)\b)\w+){1,8}?)?"
IS = r"(?::| (?:is|are|was|were|be|remains?|appears?|look(?:s|ed)?|seems?|being))?(?: not)?"
HYPO = (
    r"(?:hypo-(?:dense|attenuating|attenuated|attenuation|density|dens)|(?:low|lower|decreased|reduced|"
    r"diminished) (?:density|attenuation|attenuating))"
)
_ISO = (
    r"(?:iso-(?:dense|attenuating|attenuated|attenuation|density|dens)|(?:equal|similar|same|"
    r"identical) (?:density|attenuation))"
)
HYPER = (
    r"(?:hyper-(?:dense|attenuating|attenuated|attenuation|density|dens)|(?:high|higher|increased|"
    r"elevated) (?:density|attenuation|attenuating))"
)
_WALL = r"(?:wall|mural|bowel wall|colonic wall|intestinal wall)"
_CLOSELY = (
    r"(?:close(?:ly)? (?:relationships?|relations?|related|contact|proximity|associated|association|attached|adherent|"
    r"abutting|connected|apposed)|intimate(?:ly)? (?:related|associated|relationship|relation|contact)|"
    r"inseparable from|"
    r"adherent to|adheres to|adhesions? (?:to|with)|abut(?:s|ting|ment)?|in (?:direct |"
    r"broad )?contact with|"
    r"direct(?:ly)? contact(?:s|ing)?|indistinguishable from|close to|touch(?:es|ing)|contiguous with|"
    r"(?:near|adjacent to) (?:any |the )?(?:adjacent|surrounding|neighbou?ring))"
)
_INVADES = (
    r"(?:invad(?:es|ed|ing)|invasion (?:of|into)|infiltrat(?:es|ed|ing|ion)(?: (?:of|into))?|"
    r"direct extension into|extends into|extending into)"
)
_FAT_PLANE = r"(?:fat(?:ty)? (?:plane|interface|space|layer|gap)s?)"
_ENHANCE = r"(?:enhancement|enhances?|enhancing|enhanced)"
# "Marked heterogeneous enhancement" says two things: the strength must not take the word of the other.
_VARYING = r"\w*(?:homogen|heterogen|uneven|uniform)\w*"
_ENHANCE_SOMEHOW = rf"(?: {_ENHANCE}| (?!{_VARYING})\w+ {_ENHANCE}|(?= {_VARYING} {_ENHANCE}))"
_ROUND = (
    r"(?:round(?:ed|ish)?(?: like| shaped?)?|oval(?: shaped?)?|ovoid|ellip(?:tical|soid(?:al)?)|"
    r"spher(?:ical|oid|ic)|globular|circular)"
)

# Phrase -> values. A trailing list of conditions is not needed: the parser decides what a match may refer to.
STATED: Phrases = [
    # shape
    ([("shape", "round-like")], [_ROUND]),
    ([("shape", "irregular")], ["(?:irregular(?:ly)?(?: shaped?)?|patchy|amorphous|geographic)"]),
    (
        [("shape", "lobulated")],
        ["(?:multi-)?lobul(?:ated|ar)(?: (?:shaped?|contours?|outlines?))?", "lobulation of the contour"],
    ),
    (
        [("shape", "wall thickening"), ("specific_features", "wall thickening")],
        [
            f"thickening~{_WALL}",
            f"{_WALL} thickening",
            "wall~thickened",
            "thickened ~wall",
            "(?:circumferential|annular|focal|localized) thickening",
        ],
    ),
    (
        [("shape", "wall thickening")],
        [r"(?:annular|circumferential)(?= (?:\w+ )?(?:mass|lesion|tumou?r|cancer|carcinoma))"],
    ),
    (
        [("shape", "irregular"), ("shape", "wall thickening"), ("specific_features", "wall thickening")],
        [
            rf"(?:irregular|uneven|asymmetric(?:al)?|nodular) (?:\w+ )?(?:thickening~{_WALL}|{_WALL} thickening|"
            rf"thickening)"
        ],
    ),
    # density
    ([("density", "hypodense")], [HYPO]),
    ([("density", "isodense")], [_ISO]),
    ([("density", "hyperdense")], [HYPER]),
    (
        [("density", "hypodense")],
        [f"(?:density|attenuation){IS} {_ADVERB}(?:lower|less|decreased|reduced|low)"],
    ),
    (
        [("density", "isodense")],
        [f"(?:density|attenuation){IS} {_ADVERB}(?:equal|similar|identical|comparable|the same)"],
    ),
    (
        [("density", "hyperdense")],
        [f"(?:density|attenuation){IS} {_ADVERB}(?:higher|greater|increased|elevated|high)"],
    ),
    (
        [("density", "hypodense"), ("density", "isodense")],
        [r"(?<!from\s)hypo-(?:dense|attenuating)? ?(?:to|and|or|/) ?iso-(?:dense|attenuating)"],
    ),
    (
        [("density", "isodense"), ("density", "hypodense")],
        [r"(?<!from\s)iso-(?:dense|attenuating)? ?(?:to|and|or|/) ?hypo-(?:dense|attenuating)"],
    ),
    (
        [("density", "isodense"), ("density", "hyperdense")],
        [r"(?<!from\s)iso-(?:dense|attenuating)? ?(?:to|and|or|/) ?hyper-(?:dense|attenuating)"],
    ),
    (
        [("density", "hypodense"), ("density", "hyperdense")],
        [r"(?<!from\s)hypo-(?:dense|attenuating)? ?(?:to|and|or|/) ?hyper-(?:dense|attenuating)"],
    ),
    (
        [("density", "mixed density")],
        [
            "(?:mixed|part(?:ly|ially)?|sub|semi) (?:solid|attenuation|density)(?: and ground glass)?",
            "mixed ground glass~(?:nodule|lesion|opacity)",
            "(?:ground glass|solid) (?:and|with) (?:solid|soft tissue|ground glass)",
        ],
    ),
    ([("density", "mixed density")], ["mixed(?= (?:irregular |round |nodular |lobulated )*nodules?)"]),
    (
        [("density", "ground-glass density")],
        ["(?:pure )?ground glass(?: (?:nodule|opacity|opacities|density|attenuation|lesion))?"],
    ),
    ([("density", "soft-tissue density")], ["solid", "soft tissue (?:density|attenuation|mass|lesion|nodule)"]),
    (
        [("density", "fluid density")],
        [
            "(?:fluid|water|cystic|csf) (?:density|attenuation|attenuating)",
            "(?:fluid|water) like (?:density|attenuation)",
        ],
    ),
    ([("density", "fat density")], ["fat(?:ty)? (?:density|attenuation)"]),
    ([("density", "calcific density")], ["calcified (?:lesion|mass|nodule|stone|calculus)"]),
    # density variation
    (
        [("density_variation", "homogeneous")],
        [
            "homogen(?:e)?ous(?:ly)?",
            r"uniform(?:ly)?(?= (?:\w+ )?(?:density|attenuation|dense|attenuating|hypo\w+|hyper\w+|iso\w+|enhanc\w+))",
            "even (?:density|attenuation)",
        ],
    ),
    ([("density_variation", "homogeneous")], [f"(?:density|attenuation){IS} {_ADVERB}(?:uniform|even)"]),
    (
        [("density_variation", "heterogeneous")],
        [
            "heterogen(?:e)?ous(?:ly)?",
            "un-even (?:density|attenuation|enhancement)",
            f"(?:density|attenuation){IS} uneven",
            "heterogeneity",
            "in-?homogen(?:e)?ous(?:ly)?",
            "inhomogeneity",
        ],
    ),
    # enhancement: of the scan
    (
        [("enhancement", WITH_CONTRAST)],
        [
            "contrast enhanced(?: (?:ct|scan|computed tomography))?",
            "post contrast",
            "enhanced (?:ct|scans?|images?|computed tomography|phases?)",
            "cect",
            (
                r"(?:with|after|following|post) (?:administration of |injection of |the administration of )?(?:iv |"
                r"intravenous |i\.v\. )?contrast(?: (?:administration|medium|agent|material|injection))?"
            ),
        ],
    ),
    # enhancement: of the lesion
    (
        [("enhancement", "mild enhancement")],
        [
            rf"(?:mild(?:ly)?|slight(?:ly)?|weak(?:ly)?|faint(?:ly)?|minimal(?:ly)?|poor(?:ly)?){_ENHANCE_SOMEHOW}",
            r"hypo-(?:enhanc\w+|vascular)",
        ],
    ),
    ([("enhancement", "moderate enhancement")], [rf"moderate(?:ly)?{_ENHANCE_SOMEHOW}"]),
    (
        [("enhancement", "marked enhancement")],
        [
            (
                rf"(?:marked(?:ly)?|avid(?:ly)?|strong(?:ly)?|intense(?:ly)?|vivid(?:ly)?|obvious(?:ly)?|"
                rf"prominent(?:ly)?|pronounced|significant(?:ly)?|brisk){_ENHANCE_SOMEHOW}"
            ),
            "hyper-(?:enhancing|vascular)",
            "enhanc(?:es|ing|ed) (?:avidly|markedly|strongly|intensely|significantly|obviously)",
            f"enhancement{IS} (?:marked|avid|strong|intense|obvious)",
        ],
    ),
    (
        [("enhancement", "mild enhancement")],
        [
            "enhanc(?:es|ing|ed) (?:mildly|slightly|weakly|minimally|poorly)",
            f"enhancement{IS} (?:mild|slight|weak|minimal|poor)",
        ],
    ),
    ([("enhancement", "moderate enhancement")], ["enhanc(?:es|ing|ed) moderately", f"enhancement{IS} moderate"]),
    # surface
    ([("surface", "well-defined")], [_WELL_DEFINED]),
    ([("surface", "ill-defined")], [_ILL_DEFINED]),
    (
        [("surface", "well-defined")],
        [
            rf"{_SHARP}(?:(?: and|,) \w+)? (?:\w+ )?{_MARGIN}",
            rf"{_MARGIN}{_TOWARDS}{IS} {_ADVERB}{_SHARP}",
            f"surface{IS} {_ADVERB}smooth",
            "smooth(?:ly)? (?:contour|outline|marginated|surface)",
        ],
    ),
    (
        [("surface", "ill-defined")],
        [
            rf"{_BLURRED}(?:(?: and|,) \w+)? (?:\w+ )?{_MARGIN}",
            rf"{_MARGIN}{_TOWARDS}{IS} {_ADVERB}{_BLURRED}",
            r"loss of (?:\w+ )?(?:margin|definition|demarcation)",
            "indistinct from",
            "infiltrative (?:growth|mass|lesion|tumou?r)",
        ],
    ),
    # relationship
    ([("relationship", CLOSE)], [_CLOSELY]),
    (
        [("relationship", INVASION)],
        [_INVADES, "involv(?:es|ed|ing|ement of) (?:the )?(?:adjacent|surrounding|neighbou?ring)"],
    ),
    (
        [("relationship", CLOSE)],
        [
            rf"(?:loss|obliteration|effacement|disappearance) of (?:the )?(?:\w+ )?{_FAT_PLANE}",
            rf"{_FAT_PLANE}(?: \w+){{0,8}}? (?:lost|obliterated|effaced|blurred|indistinct|unclear|disappeared)",
            rf"(?:unclear|indistinct|blurred|obliterated|lost) (?:\w+ )?{_FAT_PLANE}",
        ],
    ),
    (
        [("relationship", NOT_CLOSE)],
        [
            rf"(?:clear|preserved|intact|normal|visible) (?:\w+ )?{_FAT_PLANE}",
            rf"{_FAT_PLANE}(?: \w+){{0,8}}? (?:preserved|intact|clear|maintained|visible)",
            "confined to the (?:organ|kidney|liver|pancreas|lung|wall|parenchyma|bowel wall)",
            "clearly separate(?:d)? from",
        ],
    ),
]

# Phrases whose value is itself a denial.
DENYING: Phrases = [
    (
        [("density_variation", "heterogeneous")],
        ["non-homogen(?:e)?ous(?:ly)?", "non-uniform(?:ly)?", "non-even (?:density|attenuation|enhancement)"],
    ),
    (
        [("relationship", CLOSE)],
        [
            r"not (?:\w+ )?separable from",
            rf"(?:no|absent|without)(?: (?:clear|definite|visible|discernible|intervening))? {_FAT_PLANE}",
            "cannot be (?:separated|distinguished) from",
        ],
    ),
    (
        [("enhancement", "non-contrast ct")],
        [
            (
                "(?:non contrast|non-enhanced|un-enhanced|plain|native|pre contrast|noncontrast) (?:(?:enhanced|"
                "chest|abdominal|thoracic|pelvic|phase) )*(?:ct|scans?|computed tomography|images?|series|study|"
                "examination|imaging)"
            ),
            "non contrast(?: enhanced)?",
            r"without (?:iv |intravenous |i\.v\. )?contrast(?: (?:administration|medium|agent|material|injection))?",
        ],
    ),
    (
        [("enhancement", NO_ENHANCEMENT)],
        [
            (
                f"(?:no|without|lack of|absent|absence of) (?:any )?(?:(?:significant|obvious|definite|appreciable|"
                f"abnormal|contrast|internal|post contrast|apparent|evident|measurable|discernible|clear|"
                f"solid) )*{_ENHANCE}"
            ),
            "(?:does|did|do) not~enhance",
            "non-enhancing",
            "un-enhancing",
            "a-vascular",
            "not enhanced",
        ],
    ),
]

# What follows from a phrase without being said; it counts only where nothing that excludes it is said.
IMPLIED: Phrases = [
    ([("density", "hypodense"), ("density_variation", "heterogeneous")], [f"mixed {HYPO}"]),
    ([("density", "isodense"), ("density_variation", "heterogeneous")], [f"mixed {_ISO}"]),
    ([("density", "hyperdense"), ("density_variation", "heterogeneous")], [f"mixed {HYPER}"]),
    ([("surface", "ill-defined")], [rf"irregular (?:and \w+ )?{_MARGIN}", f"{_MARGIN}{IS} {_ADVERB}irregular"]),
    ([("enhancement", WITH_CONTRAST)], [_ENHANCE]),
]

# Synonyms that are right where a table is written, and ambiguous in running text.
NOT_IN_TEXT = {
    "solid", "fluid", "fat", "fatty", "gas", "mixed", "smooth", "infiltrative", "circumscribed", "enhanced",
    "unenhanced", "close", "invasion", "multiple", "multifocal", "obstruction", "stricture", "layering", "scar",
    "blastic", "lytic", "sclerotic", "linear", "elongated", "wedge", "annular", "circumferential", "patchy",
    "calcified", "adherent", "perivascular", "avascular", "uniform", "plain", "native", "indistinct", "tubular",
    "septa", "osteoblastic", "stenosis", "capsule", "necrotic", "cavitary", "enhancing nodule",
    "regional lymph nodes", "dependent position", "close, boundary unclear", "central necrosis",
    "irregular wall thickening", "not close", "not round", "enhancing capsule", "fluid attenuation", "soft tissue",
    "intraluminal mass", "low density", "high density", "low attenuation", "high attenuation", "gas bubbles",
}  # fmt: skip

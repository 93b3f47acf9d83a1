"""The words of reports for specific features, in the notation of `report_lexicon`."""

from nnunetv2_malenia.attributes.report_lexicon import HYPER, HYPO, IS, WITH_CONTRAST, Phrases, Value

# Signs outside the lesion, and the organs whose lesions they belong to; all other features are the lesion's own.
SIGNS_BY_ORGAN: dict[str, frozenset[str]] = {
    "pancreatic duct dilatation": frozenset({"pancreas"}),
    "pancreatic atrophy": frozenset({"pancreas"}),
    "bile duct dilatation": frozenset({"pancreas", "liver", "gallbladder", "bile duct", "duodenum"}),
    "hydronephrosis": frozenset({"kidney", "ureter", "urinary bladder"}),
    "bowel obstruction": frozenset({"colon", "small bowel", "stomach", "duodenum"}),
    "gallstones": frozenset({"gallbladder", "bile duct"}),
    "compressive atelectasis": frozenset({"lung", "pleural space"}),
}

# What a feature implies for another aspect.
IMPLIED_BY_FEATURE: dict[str, Value] = {
    **dict.fromkeys(("rim enhancement", "peripheral nodular enhancement"), ("enhancement", WITH_CONTRAST)),
    "spiculation": ("surface", "ill-defined"),
    "rough serosal surface": ("surface", "ill-defined"),
}

_MORE_THAN_ONE = r"(?:areas|foci|regions|spots|zones|components?|portions?|parts|streaks|structures?|strands)"
_ONE_INSIDE = r"(?:area|focus|region|spot|zone|part|cent(?:er|re)|core)"
_INSIDE = r"(?:internal|central|peripheral|intralesional|intratumou?ral|inner|eccentric|linear|punctate|tubular|focal)"
_STATES = r"(?: (?:is|are))?(?: (?:seen|noted|present|observed|visible|identified|found|also))*"
_IN_THE_LESION = r"(?:within|inside|in) (?:the |this |it|its )?(?:lesions?|mass|tumou?r|cyst|nodule|interior|wall)?"
_DILATED = r"(?:dilat(?:ation|ion|ed)|ectasia|ectatic|distended|distension|widening|widened)"
_PANCREATIC_DUCT = r"(?:(?:main )?pancreatic duct(?:al)?|wirsung(?:'s)? duct|duct of wirsung)"
_BILE_DUCT = (
    r"(?:(?:intra-hepatic |extra-hepatic |common )*(?:bile|biliary|hepatic) (?:ducts?|tree|system|"
    r"radicles)|biliary|cbd)"
)
_COLLECTING = r"(?:renal pelvis|pelvi-?cal(?:y|i)ceal(?: system)?|collecting system|cal(?:y|i)ces|ureter)"

FEATURES: Phrases = [
    ([("specific_features", "spiculation")], ["spicul(?:ated|ation|ations|es|e)(?:~margins?)?", "burrs?"]),
    ([("specific_features", "lobulation")], ["lobulat(?:ed|ion|ions) (?:margins?|borders?|edges?)", "lobulations?"]),
    (
        [("specific_features", "pleural retraction")],
        [
            "pulled pleura",
            "pleura (?:is |appears )?(?:pulled|retracted|indented|puckered)",
            "pleural (?:re-?traction|traction|indentation|tags?|tagging|tails?|tethering|puckering)",
            "(?:retraction|traction|indentation|puckering)~pleura",
        ],
    ),
    (
        [("specific_features", "vascular convergence")],
        ["(?:vessels?|vascular) convergence(?: sign)?", "converging vessels", "convergence of (?:the )?vessels"],
    ),
    ([("specific_features", "cavity")], ["cavit(?:y|ies|ation|ations|ary|ated|ating)"]),
    (
        [("specific_features", "calcification")],
        [
            "calcifi(?:cations?|c|ed)(?: (?:foci|focus|spots?|deposits?|rim|wall))?",
            "calcium deposits?",
            rf"(?:punctate|spot like|speck\w*) (?:\w+ )?{HYPER}(?: (?:foci|focus|spots?))?",
            "(?:punctate|spot like) hyper-?densit(?:y|ies)",
        ],
    ),
    (
        [("specific_features", "intralesional fat")],
        [
            "(?:intra-lesional|macroscopic|intra-tumou?ral|internal) fat",
            "fat(?:ty)? (?:component|content|tissue|foci|containing)",
            r"contain(?:s|ing) (?:\w+ )?fat",
        ],
    ),
    (
        [("specific_features", "intralesional gas")],
        ["(?:intra-lesional|internal) (?:gas|air)", "(?:gas|air) (?:bubbles?|pockets?|fluid levels?|within)"],
    ),
    ([("specific_features", "hemorrhage")], ["ha?emorrhag(?:e|es|ic)(?: (?:component|foci|change|areas?))?"]),
    ([("specific_features", "necrosis")], ["necro(?:sis|tic)(?: (?:areas?|component|cent(?:er|re)|core|foci))?"]),
    (
        [("specific_features", "hypodense areas")],
        [
            f"(?:{_INSIDE} )*{HYPO} {_MORE_THAN_ONE}",
            rf"{_INSIDE} (?:\w+ )?{HYPO}(?: {_ONE_INSIDE})?",
            rf"(?:areas|foci|regions) of (?:\w+ )?{HYPO}",
            f"{HYPO} {_ONE_INSIDE}{_STATES} {_IN_THE_LESION}",
        ],
    ),
    (
        [("specific_features", "hyperdense areas")],
        [
            f"(?:{_INSIDE} )*{HYPER} {_MORE_THAN_ONE}",
            rf"{_INSIDE} (?:\w+ )?{HYPER}(?: {_ONE_INSIDE})?",
            rf"(?:areas|foci|regions) of (?:\w+ )?{HYPER}",
            f"{HYPER} {_ONE_INSIDE}{_STATES} {_IN_THE_LESION}",
        ],
    ),
    (
        [("specific_features", "cystic component")],
        [
            "cystic (?:components?|changes?|areas?|degeneration|portions?|parts?|foci|spaces?)",
            "part(?:ly|ially) cystic",
        ],
    ),
    (
        [("specific_features", "septation")],
        ["sept(?:a|um|ation|ations|ated|ate)", "multi-?locul(?:ar|ated)", "compartmentali[sz]ed"],
    ),
    (
        [("specific_features", "thin wall")],
        ["(?:thin|hairline thin|imperceptible|barely visible)~walls?", "thin walled"],
    ),
    ([("specific_features", "thick wall")], ["thick~walls?", "thick walled"]),
    (
        [("specific_features", "mural nodule")],
        ["mural nodul(?:e|es|arity)", "(?:solid )?mural components?", "wall nodules?"],
    ),
    ([("specific_features", "rim enhancement")], ["(?:rim|ring|peripheral|marginal)(?: like)? enhanc(?:ement|ing)"]),
    ([("specific_features", "capsule")], ["(?:pseudo)?capsule", "encapsulated", "encapsulation"]),
    ([("specific_features", "central scar")], ["(?:central|stellate|fibrous) scar"]),
    (
        [("specific_features", "tumor thrombus")],
        [
            "(?:tumou?r|venous|portal vein|renal vein|caval|ivc|vein) thromb(?:us|i|osis)",
            "venous invasion",
            "thromb(?:us|osis)~vein",
        ],
    ),
    (
        [("specific_features", "vascular encasement")],
        [
            "encas(?:es|ed|ing|ement)~(?:vessels?|arter(?:y|ies)|veins?|trunk|axis|aorta|sma|smv)",
            "(?:vascular|vessel|arterial|venous) encasement",
        ],
    ),
    (
        [("specific_features", "pancreatic duct dilatation")],
        [
            rf"{_PANCREATIC_DUCT}{IS} (?:\w+ )?{_DILATED}",
            f"{_DILATED}~{_PANCREATIC_DUCT}",
            f"{_PANCREATIC_DUCT}~{_DILATED}",
        ],
    ),
    (
        [("specific_features", "bile duct dilatation")],
        [rf"{_BILE_DUCT}{IS} (?:\w+ )?{_DILATED}", f"{_DILATED}~{_BILE_DUCT}", f"{_BILE_DUCT}~{_DILATED}"],
    ),
    (
        [("specific_features", "pancreatic duct dilatation"), ("specific_features", "bile duct dilatation")],
        [
            "double duct sign",
            f"{_BILE_DUCT} and {_PANCREATIC_DUCT}~{_DILATED}",
            f"{_PANCREATIC_DUCT} and {_BILE_DUCT}~{_DILATED}",
            f"{_DILATED}~(?:bile|common bile|biliary) and pancreatic ducts?",
            f"{_DILATED}~pancreatic and (?:common )?bile ducts?",
        ],
    ),
    (
        [("specific_features", "pancreatic atrophy")],
        [
            "atroph(?:y|ic|ied)~(?:pancreas|pancreatic|body|tail)",
            "(?:pancreas|pancreatic|body|tail)~atroph(?:y|ic|ied)",
        ],
    ),
    (
        [("specific_features", "communication with the pancreatic duct")],
        [
            "communicat(?:es|ing|ion)~pancreatic duct(?:al)?",
            "communicat(?:es|ing|ion)~main duct",
            "ductal communication",
        ],
    ),
    (
        [("specific_features", "hydronephrosis")],
        [
            "(?:hydro-?nephrosis|hydro-?ureter(?:onephrosis)?)",
            f"{_DILATED}~{_COLLECTING}",
            f"{_COLLECTING}{IS}~{_DILATED}",
        ],
    ),
    ([("specific_features", "gallstones")], ["(?:gall|gallbladder )stones?", "cholelithiasis"]),
    (
        [("specific_features", "luminal narrowing")],
        [
            "(?:lumen|luminal)~(?:narrow(?:ed|ing)|stenosis|stenotic)",
            "(?:narrow(?:ed|ing)|stenosis)~lumen",
            "stenos(?:is|ed)",
            "strictures?",
        ],
    ),
    (
        [("specific_features", "bowel obstruction")],
        [
            "(?:bowel|intestinal|colonic) obstruction",
            "ileus",
            r"(?:proximal|upstream) (?:bowel|colon\w*) dilat(?:at)?ion",
            "dilat(?:ation|ion|ed)~(?:proximal|upstream) (?:bowel|colon)",
        ],
    ),
    (
        [("specific_features", "rough serosal surface")],
        [
            (
                "(?:rough|irregular|coarse|hairy|uneven|blurred|indistinct) (?:serosal surface|serosa|outer surface|"
                "outer wall)"
            ),
            (
                f"(?:serosal surface|serosa|outer (?:surface|wall|margin)){IS}~(?:rough|irregular|coarse|hairy|"
                f"uneven|blurred|indistinct|ill defined)"
            ),
        ],
    ),
    (
        [("specific_features", "fat stranding")],
        [
            r"(?:peri-?\w* )?(?:fat )?stranding",
            "strand like (?:densit(?:y|ies)|opacit(?:y|ies)|shadows?)",
            "(?:linear|streaky|fine|thin) (?:strands?|densities|shadows)",
            "fat(?:ty)? (?:infiltration|haziness)",
            "streaky (?:densities|opacities)",
        ],
    ),
    (
        [("specific_features", "exophytic growth")],
        [
            "exophytic(?:ally)?(?: growth| growing)?",
            "bulg(?:es|ing)~(?:contour|outline|surface|capsule)",
            "(?:contour|outline) bulg(?:e|ing)",
            "protrud(?:es|ing) (?:from|beyond|outside)",
        ],
    ),
    ([("specific_features", "mass effect")], ["mass effect", "compress(?:es|ing|ion)", "displac(?:es|ing|ement)"]),
    (
        [("specific_features", "enlarged lymph nodes")],
        [
            "(?:enlarged|swollen)~(?:lymph )?nodes?",
            "lymph-?adenopathy",
            "adenopathy",
            rf"lymph nodes?{IS} (?:\w+ )?enlarged",
            "enlargement~lymph nodes?",
        ],
    ),
    (
        [("specific_features", "multiple lesions")],
        [
            (
                r"(?:multiple|several|numerous|many|two|three|four|five|[2-9]|[1-9]\d+)(?= (?:[\w.]+ ){0,5}?(?:lesions|"
                r"nodules|shadows|masses|cysts|tumou?rs|metastases|stones|calculi))"
            ),
            "multifocal",
        ],
    ),
]

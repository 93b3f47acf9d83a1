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
        ("enhancement", f"{strength} enhancement"): ("enhancement", "no enhancement")
        for strength in ("mild", "moderate", "marked")
    },
}

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
_IS = r"(?: (?:is|are|was|were|be|remains?|appears?|look(?:s|ed)?|seems?|being))?(?: not)?"
_HYPO = (
    r"(?:hypo-(?:dense|attenuating|attenuated|attenuation|density|dens)|(?:low|lower|decreased|reduced|"
    r"diminished) (?:density|attenuation|attenuating))"
)
_ISO = (
    r"(?:iso-(?:dense|attenuating|attenuated|attenuation|density|dens)|(?:equal|similar|same|"
    r"identical) (?:density|attenuation))"
)
_HYPER = (
    r"(?:hyper-(?:dense|attenuating|attenuated|attenuation|density|dens)|(?:high|higher|increased|"
    r"elevated) (?:density|attenuation|attenuating))"
)
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
    ([("density", "hypodense")], [_HYPO]),
    ([("density", "isodense")], [_ISO]),
    ([("density", "hyperdense")], [_HYPER]),
    (
        [("density", "hypodense")],
        [f"(?:density|attenuation){_IS} {_ADVERB}(?:lower|less|decreased|reduced|low)"],
    ),
    (
        [("density", "isodense")],
        [f"(?:density|attenuation){_IS} {_ADVERB}(?:equal|similar|identical|comparable|the same)"],
    ),
    (
        [("density", "hyperdense")],
        [f"(?:density|attenuation){_IS} {_ADVERB}(?:higher|greater|increased|elevated|high)"],
    ),
    (
        [("density", "hypodense"), ("density", "isodense")],
        ["hypo-(?:dense|attenuating)? ?(?:to|and|or|/) ?iso-(?:dense|attenuating)"],
    ),
    (
        [("density", "isodense"), ("density", "hypodense")],
        ["iso-(?:dense|attenuating)? ?(?:to|and|or|/) ?hypo-(?:dense|attenuating)"],
    ),
    (
        [("density", "isodense"), ("density", "hyperdense")],
        ["iso-(?:dense|attenuating)? ?(?:to|and|or|/) ?hyper-(?:dense|attenuating)"],
    ),
    (
        [("density", "hypodense"), ("density", "hyperdense")],
        ["hypo-(?:dense|attenuating)? ?(?:to|and|or|/) ?hyper-(?:dense|attenuating)"],
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
    ([("density_variation", "homogeneous")], [f"(?:density|attenuation){_IS} {_ADVERB}(?:uniform|even)"]),
    (
        [("density_variation", "heterogeneous")],
        [
            "heterogen(?:e)?ous(?:ly)?",
            "un-even (?:density|attenuation|enhancement)",
            f"(?:density|attenuation){_IS} uneven",
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
            f"enhancement{_IS} (?:marked|avid|strong|intense|obvious)",
        ],
    ),
    (
        [("enhancement", "mild enhancement")],
        [
            "enhanc(?:es|ing|ed) (?:mildly|slightly|weakly|minimally|poorly)",
            f"enhancement{_IS} (?:mild|slight|weak|minimal|poor)",
        ],
    ),
    ([("enhancement", "moderate enhancement")], ["enhanc(?:es|ing|ed) moderately", f"enhancement{_IS} moderate"]),
    # surface
    ([("surface", "well-defined")], [_WELL_DEFINED]),
    ([("surface", "ill-defined")], [_ILL_DEFINED]),
    (
        [("surface", "well-defined")],
        [
            rf"{_SHARP}(?:(?: and|,) \w+)? (?:\w+ )?{_MARGIN}",
            rf"{_MARGIN}{_TOWARDS}{_IS} {_ADVERB}{_SHARP}",
            f"{_MARGIN}: {_SHARP}",
            f"surface{_IS} {_ADVERB}smooth",
            "smooth(?:ly)? (?:contour|outline|marginated|surface)",
        ],
    ),
    (
        [("surface", "ill-defined")],
        [
            rf"{_BLURRED}(?:(?: and|,) \w+)? (?:\w+ )?{_MARGIN}",
            rf"{_MARGIN}{_TOWARDS}{_IS} {_ADVERB}{_BLURRED}",
            f"{_MARGIN}: {_BLURRED}",
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
    # specific features
    ([("specific_features", "spiculation")], ["spicul(?:ated|ation|ations|es|e)(?:~margins?)?", "burrs?"]),
    ([("specific_features", "lobulation")], ["lobulat(?:ed|ion|ions) (?:margins?|borders?|edges?)", "lobulations?"]),
    (
        [("specific_features", "pleural retraction")],
        [
            "pulled pleura",
            "pleura (?:is |appears )?(?:pulled|retracted|indented|puckered)",
            "pleural (?:re-?traction|traction|indentation|tags?|tails?|puckering)",
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
            rf"(?:punctate|spot like|speck\w*) (?:\w+ )?{_HYPER}(?: (?:foci|focus|spots?))?",
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
            f"(?:{_INSIDE} )*{_HYPO} {_MORE_THAN_ONE}",
            rf"{_INSIDE} (?:\w+ )?{_HYPO}(?: {_ONE_INSIDE})?",
            rf"(?:areas|foci|regions) of (?:\w+ )?{_HYPO}",
            f"{_HYPO} {_ONE_INSIDE}{_STATES} {_IN_THE_LESION}",
        ],
    ),
    (
        [("specific_features", "hyperdense areas")],
        [
            f"(?:{_INSIDE} )*{_HYPER} {_MORE_THAN_ONE}",
            rf"{_INSIDE} (?:\w+ )?{_HYPER}(?: {_ONE_INSIDE})?",
            rf"(?:areas|foci|regions) of (?:\w+ )?{_HYPER}",
            f"{_HYPER} {_ONE_INSIDE}{_STATES} {_IN_THE_LESION}",
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
            rf"{_PANCREATIC_DUCT}{_IS} (?:\w+ )?{_DILATED}",
            f"{_DILATED}~{_PANCREATIC_DUCT}",
            f"{_PANCREATIC_DUCT}~{_DILATED}",
        ],
    ),
    (
        [("specific_features", "bile duct dilatation")],
        [rf"{_BILE_DUCT}{_IS} (?:\w+ )?{_DILATED}", f"{_DILATED}~{_BILE_DUCT}", f"{_BILE_DUCT}~{_DILATED}"],
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
            f"{_COLLECTING}{_IS}~{_DILATED}",
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
                f"(?:serosal surface|serosa|outer (?:surface|wall|margin)){_IS}~(?:rough|irregular|coarse|hairy|"
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
            rf"lymph nodes?{_IS} (?:\w+ )?enlarged",
            "enlargement~lymph nodes?",
        ],
    ),
    (
        [("specific_features", "multiple lesions")],
        [
            (
                r"(?:multiple|several|numerous|many|two|three|four|five|\d)(?= (?:[\w.]+ ){0,5}?(?:lesions|nodules|"
                r"shadows|masses|cysts|tumou?rs|metastases|stones|calculi))"
            ),
            "multifocal",
        ],
    ),
]

# Phrases whose value is itself a denial.
DENYING: Phrases = [
    (
        [("density_variation", "heterogeneous")],
        ["non-homogen(?:e)?ous(?:ly)?", "non-uniform(?:ly)?", "non-even (?:density|attenuation|enhancement)"],
    ),
    ([("relationship", CLOSE)], ["not separable from", "cannot be (?:separated|distinguished) from"]),
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
        [("enhancement", "no enhancement")],
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
    ([("density", "hypodense"), ("density_variation", "heterogeneous")], [f"mixed {_HYPO}"]),
    ([("density", "isodense"), ("density_variation", "heterogeneous")], [f"mixed {_ISO}"]),
    ([("density", "hyperdense"), ("density_variation", "heterogeneous")], [f"mixed {_HYPER}"]),
    ([("surface", "ill-defined")], [rf"irregular (?:and \w+ )?{_MARGIN}", f"{_MARGIN}{_IS} {_ADVERB}irregular"]),
    ([("enhancement", WITH_CONTRAST)], [_ENHANCE]),
]
IMPLIED_BY_FEATURE: dict[str, Value] = {
    **dict.fromkeys(("rim enhancement", "peripheral nodular enhancement"), ("enhancement", WITH_CONTRAST)),
    "spiculation": ("surface", "ill-defined"),
    "rough serosal surface": ("surface", "ill-defined"),
}

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

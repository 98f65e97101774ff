"""What a report may say of each finding: forms with slots, and the words that fill them.

Slots: ``sev`` how severe ("small"), ``a_sev`` the same with its article, ``badly`` its adverb; ``side``, ``sided``
("right-sided") and ``on`` ("on the right"); ``zone`` ("right upper lobe"), ``base`` ("right basilar") and ``at`` ("in the right
upper lobe"); ``rib`` which ribs; ``lump`` nodule or mass; ``seen`` any verb of seeing; ``s`` and ``are`` the number of a finding
that may be on both sides. A form says nothing that its slots do not carry, and no form of one finding uses the words of another:
"opacity" is never said of a consolidation.
"""

from __future__ import annotations

SEEN = ("seen", "noted", "identified", "present", "demonstrated", "visualized", "visible")

SEVERITY: dict[str, dict[str, tuple[str, ...]]] = {
    "": {
        "mild": ("mild", "minimal", "slight"),
        "moderate": ("moderate",),
        "severe": ("severe", "marked", "extensive"),
    },
    "Cardiomegaly": {"mild": ("mild", "slight"), "moderate": ("moderate",), "severe": ("severe", "marked")},
    "Pleural Effusion": {
        "mild": ("small", "trace", "minimal", "tiny"),
        "moderate": ("moderate", "moderate-sized"),
        "severe": ("large", "very large", "extensive"),
    },
    "Pneumothorax": {
        "mild": ("small", "tiny", "minimal", "trace"),
        "moderate": ("moderate", "moderate-sized"),
        "severe": ("large", "very large", "extensive"),
    },
    "Consolidation": {
        "mild": ("mild", "small", "minimal"),
        "moderate": ("moderate",),
        "severe": ("extensive", "dense", "marked"),
    },
    "Lung Opacity": {
        "mild": ("faint", "mild", "subtle", "minimal"),
        "moderate": ("moderate",),
        "severe": ("extensive", "marked", "severe"),
    },
    "Lung Lesion": {
        "mild": ("small", "tiny"),
        "moderate": ("moderate-sized", "medium-sized"),
        "severe": ("large", "very large"),
    },
    "Fracture": {
        "mild": ("nondisplaced", "minimally displaced"),
        "moderate": ("displaced", "moderately displaced"),
        "severe": ("markedly displaced", "severely displaced"),
    },
}
"""The words of each severity; those under "" serve the findings that are not named."""

ADVERBS = {"mild": ("mildly", "slightly"), "moderate": ("moderately",), "severe": ("markedly", "severely")}
LUMPS = {"mild": ("nodule",), "moderate": ("nodule", "lesion"), "severe": ("mass",)}

ZONES = {
    "upper": ("upper lobe", "upper lung zone", "upper lung"),
    "mid": ("mid lung zone", "mid lung"),
    "lower": ("lower lobe", "lower lung zone", "lower lung"),
}
MIDDLE_LOBE = "middle lobe"
"""The right lung alone has one."""

PRESENT: dict[str, tuple[str, ...]] = {
    "Cardiomegaly": (
        "There is {sev} cardiomegaly.",
        "{sev} cardiomegaly is {seen}.",
        "The heart is {badly} enlarged.",
        "The cardiac silhouette is {badly} enlarged.",
        "{badly} enlarged cardiac silhouette.",
        "There is {sev} enlargement of the cardiac silhouette.",
        "{sev} cardiac enlargement is {seen}.",
        "Heart size is {badly} enlarged.",
        "The size of the heart is {badly} increased, in keeping with cardiomegaly.",
        "{badly} enlarged heart.",
        "The cardiothoracic ratio is {badly} increased, consistent with cardiomegaly.",
        "{sev} enlargement of the heart is {seen}.",
        "Cardiomegaly is {seen}, {sev} in degree.",
    ),
    "Pleural Effusion": (
        "There {are} {a_sev} {side} pleural effusion{s}.",
        "{a_sev} {sided} pleural effusion{s} {are} {seen}.",
        "{a_sev} pleural effusion{s} {are} {seen} {on}.",
        "{sev} {side} pleural effusion{s}.",
        "Blunting of the {side} costophrenic angle{s} is consistent with {a_sev} pleural effusion{s}.",
        "The {side} costophrenic angle{s} {are} blunted by {a_sev} effusion{s}.",
        "{sev} layering {side} pleural effusion{s} {are} {seen}.",
        "There is {sev} pleural fluid {on}.",
        "{sev} pleural fluid is {seen} {on}, blunting the costophrenic angle{s}.",
        "The {side} hemidiaphragm{s} {are} obscured by {a_sev} pleural effusion{s}.",
        "{sided} pleural effusion{s} {are} {seen}, {sev} in size.",
        "Fluid is {seen} in the {side} pleural space{s}, in keeping with {a_sev} effusion{s}.",
        "{a_sev} effusion{s} {are} {seen} {on}.",
    ),
    "Pneumothorax": (
        "There is {a_sev} {side} pneumothorax.",
        "{a_sev} {side} apical pneumothorax is {seen}.",
        "{sev} {sided} pneumothorax.",
        "{a_sev} pneumothorax is {seen} {on}.",
        "A visceral pleural line is {seen} at the {side} apex, consistent with {a_sev} pneumothorax.",
        "There is {a_sev} pneumothorax at the {side} apex.",
        "{a_sev} {sided} pneumothorax is {seen}.",
        "{side} pneumothorax is {seen}, {sev} in size.",
        "A lucent rim at the {side} apex indicates {a_sev} pneumothorax.",
        "The {side} lung is retracted from the chest wall by {a_sev} pneumothorax.",
        "{sev} {side} apical pneumothorax with a thin pleural line.",
        "Pleural air is {seen} at the {side} apex, forming {a_sev} pneumothorax.",
    ),
    "Consolidation": (
        "There is {sev} consolidation {at}.",
        "{sev} {zone} consolidation is {seen}.",
        "{sev} consolidation is {seen} {at}.",
        "{sev} {zone} consolidation with air bronchograms.",
        "Air bronchograms are {seen} within {a_sev} consolidation {at}.",
        "{sev} airspace consolidation is {seen} {at}.",
        "There is {a_sev} area of consolidation {at}.",
        "{a_sev} focus of consolidation is {seen} {at}.",
        "{sev} consolidative change is {seen} {at}.",
        "{sev} consolidative airspace disease with air bronchograms {at}.",
        "The {zone} shows {sev} consolidation with air bronchograms.",
        "The {zone} is {badly} consolidated.",
        "{a_sev} confluent consolidation is {seen} {at}.",
    ),
    "Lung Opacity": (
        "There is {a_sev} hazy opacity {at}.",
        "{a_sev} {zone} opacity is {seen}.",
        "{a_sev} hazy opacity is {seen} {at}.",
        "{sev} ground-glass opacity is {seen} {at}.",
        "{sev} hazy opacification {at}.",
        "{sev} {zone} haziness is {seen}, with vessels still visible through the opacity.",
        "There is {a_sev} ill-defined opacity {at}.",
        "{a_sev} ill-defined hazy opacity projects over the {zone}.",
        "{sev} patchy opacity is {seen} {at}.",
        "The {zone} shows {sev} hazy opacification.",
        "Ground-glass opacity is {seen} {at}, {sev} in extent.",
        "{a_sev} veil-like opacity is {seen} {at}.",
    ),
    "Lung Lesion": (
        "There is {a_sev} {lump} {at}.",
        "{a_sev} pulmonary {lump} is {seen} {at}.",
        "{a_sev} {zone} {lump} is {seen}.",
        "{sev} {zone} {lump}.",
        "{a_sev} well-circumscribed pulmonary {lump} projects over the {zone}.",
        "{a_sev} round {lump} is {seen} {at}.",
        "A solitary pulmonary {lump} is {seen} {at}, {sev} in diameter.",
        "The {zone} contains {a_sev} pulmonary {lump}.",
        "{a_sev} discrete {lump} is {seen} in the lung parenchyma {at}.",
        "There is {a_sev} solitary {lump} projecting over the {zone}.",
        "{a_sev} {lump} with smooth margins is {seen} {at}.",
        "Note is made of {a_sev} {zone} {lump}.",
    ),
    "Atelectasis": (
        "There is {sev} {zone} atelectasis.",
        "There is {sev} {base} atelectasis.",
        "{sev} {base} subsegmental atelectasis is {seen}.",
        "{sev} atelectasis is {seen} {at}.",
        "{sev} {zone} atelectasis is {seen}.",
        "{sev} linear atelectasis is {seen} {at}.",
        "{sev} bandlike atelectasis {at}.",
        "{sev} volume loss {at} is compatible with atelectasis.",
        "Linear bands {at} are in keeping with {sev} atelectasis.",
        "{sev} subsegmental atelectasis is {seen} {at}.",
        "{sev} platelike atelectasis {at}.",
        "There is {sev} atelectatic change {at}.",
        "{sev} atelectasis with volume loss is {seen} {at}.",
        "Streaky bands of {sev} atelectasis are {seen} {at}.",
    ),
    "Edema": (
        "There is {sev} pulmonary edema.",
        "{sev} pulmonary edema is {seen}.",
        "{sev} interstitial edema with septal lines is {seen} bilaterally.",
        "Pulmonary vascular congestion with {sev} pulmonary edema.",
        "There is pulmonary vascular congestion with septal lines, consistent with {sev} edema.",
        "Vascular indistinctness and septal lines are in keeping with {sev} pulmonary edema.",
        "{sev} bilateral perihilar edema is {seen}.",
        "Perihilar vascular congestion is {seen} with {sev} interstitial edema.",
        "Kerley B lines at both lung bases indicate {sev} pulmonary edema.",
        "The pulmonary vessels are engorged and indistinct, reflecting {sev} edema.",
        "{sev} bilateral pulmonary edema.",
        "Cephalization of the pulmonary vessels with {sev} edema is {seen}.",
    ),
    "Fracture": (
        "There is a {sev} {side} {rib} rib fracture.",
        "A {sev} fracture of a {side} {rib} rib is {seen}.",
        "{sev} {side} {rib} rib fracture.",
        "A {sev} {side} rib fracture is {seen}.",
        "There is a {sev} fracture involving one of the {side} {rib} ribs.",
        "One of the {side} {rib} ribs is fractured, with {sev} fragments.",
        "A {side} {rib} rib fracture is {seen}, {sev}.",
        "Cortical disruption of a {side} {rib} rib is consistent with a {sev} fracture.",
        "A {sev} rib fracture is {seen} {on}.",
        "A {sev} acute fracture of a {side} {rib} rib is {seen}.",
        "Acute {side} {rib} rib fracture, {sev}.",
        "A fracture line crosses a {side} {rib} rib, which is {sev}.",
    ),
}
"""Sentences that state a finding; those of devices are in :data:`DEVICE_FORMS`."""

DEVICE_FORMS: dict[str, tuple[str, ...]] = {
    "endotracheal tube": (
        "An endotracheal tube is {seen}.",
        "The endotracheal tube terminates above the carina.",
        "Endotracheal tube in standard position.",
        "An endotracheal tube is in place with its tip in the trachea.",
        "The tip of the endotracheal tube projects over the trachea.",
        "The patient is intubated, with the endotracheal tube tip above the carina.",
        "The ET tube is in satisfactory position.",
        "ETT tip projects above the carina.",
        "There is an endotracheal tube in appropriate position.",
        "The ET tube tip lies within the trachea.",
        "An endotracheal tube has been placed.",
    ),
    "central venous catheter": (
        "A {side} central venous catheter is {seen}.",
        "A {side} PICC is {seen}.",
        "{side} PICC terminates in the superior vena cava.",
        "A {sided} central line is in place with its tip in the SVC.",
        "There is a {side} central venous catheter terminating in the SVC.",
        "The tip of the {side} central venous catheter projects over the superior vena cava.",
        "A {side} subclavian central line is {seen}.",
        "{side} central venous line in standard position.",
        "The {side} central venous catheter is in satisfactory position.",
        "A {sided} PICC line is {seen} with its tip near the cavoatrial junction.",
        "{sided} central venous catheter tip in the SVC.",
    ),
    "pacemaker": (
        "A {side} chest wall pacemaker is {seen}.",
        "A {sided} pacemaker is in place with leads over the heart.",
        "There is a {side} pectoral pacemaker with intact leads.",
        "A {side} chest wall AICD is {seen}.",
        "{sided} pacemaker with leads in the expected position.",
        "A {side} cardiac pacing device is {seen}.",
        "A {side} chest wall generator with pacemaker leads is {seen}.",
        "Pacemaker leads extend from a {side} chest wall generator.",
        "A {sided} AICD is in place.",
        "The {side} pectoral pacemaker and its leads are in unchanged position.",
        "{side} chest wall pacemaker, leads intact.",
    ),
    "chest tube": (
        "A {side} chest tube is {seen}.",
        "A {sided} chest tube is in place.",
        "There is a {side} pleural drain.",
        "A {side} pleural drain is {seen}.",
        "A {side} thoracostomy tube is {seen}.",
        "{sided} chest tube projects over the hemithorax.",
        "The {side} chest tube is in satisfactory position.",
        "A chest tube is {seen} {on}.",
        "{side} chest tube in place.",
        "There is a {sided} chest tube with its tip in the pleural space.",
        "A {side} chest drain is {seen}.",
    ),
}

ABSENT: dict[str, tuple[str, ...]] = {
    "Cardiomegaly": (
        "Heart size is normal.",
        "The heart is normal in size.",
        "The cardiac silhouette is normal in size.",
        "The cardiac silhouette is not enlarged.",
        "The heart is not enlarged.",
        "No cardiomegaly.",
        "Normal heart size.",
        "The cardiac silhouette is within normal limits.",
    ),
    "Pleural Effusion": (
        "No pleural effusion.",
        "There is no pleural effusion.",
        "No pleural effusion is {seen}.",
        "There is no evidence of pleural effusion.",
        "The costophrenic angles are sharp, without effusion.",
        "No pleural fluid is {seen}.",
        "Negative for pleural effusion.",
    ),
    "Pneumothorax": (
        "No pneumothorax.",
        "There is no pneumothorax.",
        "No pneumothorax is {seen}.",
        "There is no evidence of pneumothorax.",
        "Negative for pneumothorax.",
        "No visible pneumothorax on this view.",
    ),
    "Consolidation": (
        "No focal consolidation.",
        "There is no focal consolidation.",
        "No consolidation is {seen}.",
        "There is no evidence of consolidation.",
        "The lungs show no focal consolidation.",
        "No airspace consolidation is {seen}.",
    ),
    "Lung Opacity": (
        "No lung opacity is {seen}.",
        "There is no focal lung opacity.",
        "No hazy opacity is {seen}.",
        "There is no ground-glass opacity.",
        "The lungs are free of opacities.",
    ),
    "Lung Lesion": (
        "No pulmonary nodule or mass.",
        "There is no pulmonary nodule.",
        "No suspicious lung nodule is {seen}.",
        "There is no evidence of a lung mass.",
        "No lung mass is {seen}.",
        "No suspicious pulmonary nodules or masses are {seen}.",
    ),
    "Atelectasis": (
        "No atelectasis.",
        "There is no atelectasis.",
        "No atelectasis is {seen}.",
        "There is no evidence of atelectasis or volume loss.",
        "The lungs show no atelectasis.",
    ),
    "Edema": (
        "No pulmonary edema.",
        "There is no pulmonary edema.",
        "No evidence of pulmonary edema.",
        "The pulmonary vascularity is normal, without edema.",
        "There is no interstitial edema.",
        "No overt pulmonary edema is {seen}.",
    ),
    "Fracture": (
        "No rib fracture.",
        "No acute fracture is {seen}.",
        "There is no displaced rib fracture.",
        "The ribs are intact, without fracture.",
        "No acute osseous abnormality.",
        "There is no evidence of rib fracture.",
    ),
    "Support Devices": (
        "No support devices are {seen}.",
        "There are no support devices.",
        "No lines or tubes are {seen}.",
        "There are no lines or tubes.",
        "No indwelling support devices.",
    ),
}

LISTED = {
    "Pleural Effusion": ("pleural effusion", "effusion"),
    "Pneumothorax": ("pneumothorax",),
    "Consolidation": ("focal consolidation", "consolidation"),
    "Lung Lesion": ("pulmonary nodule", "lung mass"),
    "Edema": ("pulmonary edema", "overt edema"),
    "Atelectasis": ("atelectasis",),
    "Fracture": ("rib fracture", "acute fracture"),
}
"""Nouns for "No this, that or the other"."""

LIST_FORMS = (
    "No {list}.",
    "There is no {list}.",
    "No evidence of {list}.",
    "No {list} is {seen}.",
    "Negative for {list}.",
)

LUNGS_CLEAR = ("The lungs are clear.", "Lungs are clear.", "Both lungs are clear.", "The lungs are clear bilaterally.")
"""Said where nothing of the lung is present or in doubt; it states that consolidation and opacity are absent, and no more."""

UNCERTAIN: dict[str, tuple[str, ...]] = {
    "Cardiomegaly": (
        "Possible {sev} cardiomegaly.",
        "The heart may be {badly} enlarged.",
        "Questionable {sev} enlargement of the cardiac silhouette.",
        "{sev} cardiomegaly cannot be excluded.",
        "Heart size is difficult to judge on this view, and {sev} cardiomegaly is possible.",
    ),
    "Pleural Effusion": (
        "Possible {sev} {side} pleural effusion{s}.",
        "{a_sev} {side} pleural effusion{s} cannot be excluded.",
        "There may be {a_sev} {side} pleural effusion{s}.",
        "Questionable {sev} pleural effusion{s} {on}.",
        "Blunting of the {side} costophrenic angle{s} may represent {a_sev} effusion{s}.",
        "Suspected {sev} {side} pleural effusion{s}.",
    ),
    "Pneumothorax": (
        "Possible {sev} {side} apical pneumothorax.",
        "{a_sev} {side} pneumothorax cannot be excluded.",
        "There may be {a_sev} {side} pneumothorax.",
        "Questionable {sev} pneumothorax {on}.",
        "A faint line at the {side} apex may represent {a_sev} pneumothorax.",
    ),
    "Consolidation": (
        "Possible {sev} consolidation {at}.",
        "{sev} {zone} consolidation cannot be excluded.",
        "There may be {sev} consolidation {at}.",
        "Questionable {sev} {zone} consolidation.",
        "{sev} consolidation is suspected {at}.",
    ),
    "Lung Opacity": (
        "Possible {sev} hazy opacity {at}.",
        "Cannot exclude {a_sev} {zone} opacity.",
        "There may be {a_sev} hazy opacity {at}.",
        "Questionable {sev} {zone} opacity.",
        "{a_sev} ground-glass opacity is suspected {at}.",
    ),
    "Lung Lesion": (
        "Possible {sev} {lump} {at}.",
        "{a_sev} {zone} {lump} cannot be excluded.",
        "There may be {a_sev} pulmonary {lump} {at}.",
        "Questionable {sev} {zone} {lump}.",
        "{a_sev} pulmonary {lump} is suspected {at}.",
    ),
    "Atelectasis": (
        "Possible {sev} {zone} atelectasis.",
        "There may be {sev} atelectasis {at}.",
        "Probable {sev} atelectasis {at}.",
        "{sev} {zone} atelectasis cannot be excluded.",
        "Linear bands {at} may represent {sev} atelectasis.",
    ),
    "Edema": (
        "Possible {sev} pulmonary edema.",
        "{sev} pulmonary edema cannot be excluded.",
        "There may be {sev} interstitial edema.",
        "Questionable {sev} pulmonary edema.",
        "Indistinct vessels may represent {sev} edema.",
    ),
    "Fracture": (
        "Possible {sev} {side} {rib} rib fracture.",
        "A {sev} {side} rib fracture cannot be excluded.",
        "Questionable {sev} fracture of a {side} {rib} rib.",
        "There may be a {sev} {side} {rib} rib fracture.",
        "A {sev} fracture of a {side} {rib} rib is suspected.",
    ),
}

BRIEF: dict[str, tuple[str, ...]] = {
    "Cardiomegaly": ("{sev} cardiomegaly", "{badly} enlarged heart", "{sev} cardiac enlargement"),
    "Pleural Effusion": (
        "{sev} {side} pleural effusion{s}",
        "{sev} {sided} effusion{s}",
        "{sev} pleural effusion{s} {on}",
    ),
    "Pneumothorax": ("{sev} {side} pneumothorax", "{sev} {side} apical pneumothorax", "{sev} {sided} pneumothorax"),
    "Consolidation": ("{sev} {zone} consolidation", "{sev} consolidation {at}"),
    "Lung Opacity": ("{sev} {zone} opacity", "{sev} hazy opacity {at}", "{sev} ground-glass opacity {at}"),
    "Lung Lesion": ("{sev} {zone} {lump}", "{sev} pulmonary {lump} {at}"),
    "Atelectasis": ("{sev} {zone} atelectasis", "{sev} {base} atelectasis", "{sev} atelectasis {at}"),
    "Edema": ("{sev} pulmonary edema", "{sev} interstitial edema", "pulmonary vascular congestion with {sev} edema"),
    "Fracture": ("{sev} {side} {rib} rib fracture", "{sev} fracture of a {side} {rib} rib"),
}
"""Noun phrases for the impression, where two may be joined."""

NORMAL_IMPRESSIONS = (
    "No acute cardiopulmonary abnormality.",
    "No acute cardiopulmonary process.",
    "No acute cardiopulmonary disease.",
    "Normal chest radiograph.",
    "No acute intrathoracic process.",
    "Unremarkable chest radiograph.",
    "No acute abnormality.",
    "No radiographic evidence of acute cardiopulmonary disease.",
)

NEUTRAL = (
    "The trachea is midline.",
    "The soft tissues are unremarkable.",
    "The upper abdomen is unremarkable.",
    "The patient is slightly rotated.",
    "The hilar contours are unremarkable.",
    "The study is of good quality.",
    "The inspiration is adequate.",
    "The visualized upper abdomen is within normal limits.",
    "The aortic contour is normal.",
    "The diaphragm is smooth in outline.",
)
"""Said of any study, and of no finding."""
INCIDENTAL = (
    "Degenerative changes are seen in the thoracic spine.",
    "Mild degenerative change of the spine.",
    "The aorta is calcified.",
    "Aortic arch calcification is noted.",
    "The thoracic aorta is tortuous.",
    "Mild scoliosis of the thoracic spine.",
    "Osteophytes are present in the thoracic spine.",
    "There is osteopenia.",
)
"""Old changes that are not among the fourteen; left out of normal studies, which are then normal to any reader."""
ADVICE = (
    "Clinical correlation is recommended.",
    "Follow-up radiograph is recommended.",
    "Short-interval follow-up is suggested.",
    "Recommend correlation with the clinical picture.",
    "A lateral view may be helpful.",
    "Continued follow-up is advised.",
)

EXAMS = (
    "Chest radiograph, frontal view.",
    "Portable chest radiograph.",
    "Chest, single view.",
    "AP chest.",
    "PA chest radiograph.",
)
INDICATIONS = (
    "Shortness of breath.",
    "Cough.",
    "Chest pain.",
    "Dyspnea.",
    "Fever.",
    "Preoperative evaluation.",
    "Routine examination.",
    "Fatigue.",
    "Follow-up.",
)
COMPARISONS = ("None available.", "None.", "No prior studies for comparison.", "Prior outside study is not available.")
TECHNIQUES = (
    "Single frontal view of the chest.",
    "A frontal radiograph of the chest was obtained.",
    "AP view of the chest.",
    "One view of the chest.",
)

SHORT_NORMAL: tuple[tuple[tuple[str, tuple[str, ...]], ...], ...] = (
    (
        ("The heart is normal in size.", ("Cardiomegaly",)),
        ("The lungs are clear.", ("Consolidation", "Lung Opacity")),
        ("No pleural effusion or pneumothorax.", ("Pleural Effusion", "Pneumothorax")),
        ("No acute cardiopulmonary abnormality.", ()),
    ),
    (
        ("Heart size is normal.", ("Cardiomegaly",)),
        ("Lungs are clear.", ("Consolidation", "Lung Opacity")),
        ("No acute cardiopulmonary disease.", ()),
    ),
    (
        ("The lungs are clear.", ("Consolidation", "Lung Opacity")),
        ("There is no pleural effusion or pneumothorax.", ("Pleural Effusion", "Pneumothorax")),
        ("No acute cardiopulmonary process.", ()),
    ),
    (
        ("Heart size is normal.", ("Cardiomegaly",)),
        (
            "No focal consolidation, pleural effusion, or pneumothorax.",
            ("Consolidation", "Pleural Effusion", "Pneumothorax"),
        ),
        ("Normal chest radiograph.", ()),
    ),
)
"""Whole reports that departments use again and again: sentences, each with what it denies; the last is the impression."""

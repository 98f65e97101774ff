"""Sentences about no particular finding: normal studies, neutral remarks, advice, and the sections before the findings."""

from __future__ import annotations

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
    "The airway is patent.",
)
"""True of any study, and about no finding."""
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
"""Chronic changes that are not among the 14 findings; not used in normal studies, which any reader must find normal."""
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
    "Chest x-ray.",
    "Frontal chest radiograph.",
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
"""Standard normal reports: sentences, each with the findings that it denies; the last is the impression."""

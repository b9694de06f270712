"""Names the findings of a radiograph and the values of a label."""

# Thesis table 4.1, in its order: the 14 findings of ChestX-ray14 and COVID-19.
FINDINGS = (
    "Cardiomegaly",
    "Emphysema",
    "Effusion",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Atelectasis",
    "Pneumothorax",
    "Pleural_Thickening",
    "Pneumonia",
    "Fibrosis",
    "Edema",
    "Consolidation",
    "COVID-19",
)

POSITIVE, NEGATIVE, UNKNOWN = 1, 0, -1

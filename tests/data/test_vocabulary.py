"""One vocabulary of findings: which names mean the same, and what parts say of a whole."""

import pytest

from jaxcxr.data import label_tables, vocabulary
from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.xray.sources import chexpert, kaggle_pneumonia, open_i, padchest, vindr_cxr

POSITIVE, NEGATIVE, UNKNOWN, UNCERTAIN = 1, 0, -1, vocabulary.UNCERTAIN


@pytest.mark.parametrize(("name", "union"), [
    ("Pleural Effusion", "Effusion"), ("pleural effusion", "Effusion"), ("Effusion", "Effusion"),
    ("Pulmonary Atelectasis", "Atelectasis"), ("Infiltrate", "Infiltration"),
    ("Pleural thickening", "Pleural_Thickening"), ("pleural_thickening", "Pleural_Thickening"),
    ("Hernia, Hiatal", "Hernia"), ("Nodule/Mass", "Lung Lesion"), ("kyphosis", None),
    ("Lung Opacity", "Lung Opacity"), ("Rib fracture", "Fracture"),
])
def test_names_of_one_finding(name, union):
    assert vocabulary.union_name(name) == union


def test_no_name_means_two_findings():
    names = [
        {vocabulary.fold(name) for name in (union, *others, *vocabulary.PARTS.get(union, ()))}
        for union, others in vocabulary.SAME.items()
    ]
    assert len(set.union(*names)) == sum(map(len, names))
    assert set(vocabulary.PARTS) <= set(vocabulary.SAME)


def test_a_part_is_not_the_whole():
    assert vocabulary.union_name("Rib fracture", parts=False) is None
    matched = label_tables.match_classes(
        ["Effusion", "Fracture", "Pleural_Thickening"],
        ["pleural effusion", "Rib fracture", "Pleural thickening"],
    )
    assert matched == {"Effusion": "pleural effusion", "Pleural_Thickening": "Pleural thickening"}
    both = label_tables.match_classes(["Effusion", "Pleural Effusion"], ["Pleural Effusion"])
    assert both == {"Pleural Effusion": "Pleural Effusion"}  # no column serves two classes


def test_every_schema_is_made_of_names_of_the_union():
    assert vocabulary.SCHEMAS["cxr15"] == FINDINGS
    assert vocabulary.SCHEMAS["chestxray14"] == tuple(n for n in FINDINGS if n != "COVID-19")
    assert len(vocabulary.CHEXPERT) == 13
    for name, classes in vocabulary.SCHEMAS.items():
        assert all(vocabulary.union_name(c) for c in classes), name
        assert len({vocabulary.union_name(c) for c in classes}) == len(classes), name


def test_every_set_reads_for_something_of_the_union():
    for source in (chexpert.Chexpert, padchest.Padchest, vindr_cxr.VindrCxr, open_i.OpenI,
                   kaggle_pneumonia.KagglePneumonia):
        assert any(vocabulary.parts_of(name, source.own) for name in vocabulary.SAME), source
    assert all(vocabulary.union_name(name) for name in padchest._MAPPED)
    assert not any(vocabulary.union_name(name) for name in padchest._FURTHER)


@pytest.mark.parametrize(("parts", "whole"), [
    ((), UNKNOWN), ((1,), 1), ((0, 0), 0), ((0, 1), 1), ((0, UNKNOWN), UNKNOWN),
    ((UNKNOWN, 1), 1), ((0, UNCERTAIN), UNCERTAIN), ((UNCERTAIN, 1), 1),
])
def test_parts_of_a_finding(parts, whole):
    assert vocabulary.combined(parts) == whole


@pytest.mark.parametrize(("text", "whole", "first"), [
    ("PA", "PA", "PA"), (" ap ", "AP", "AP"), ("AP supine", "", "AP"), ("AP_horizontal", "", "AP"),
    ("AP AXIAL", "", "AP"), ("Left lateral", "L", "L"), ("XTABLE LATERAL", "L", "L"),
    ("LL", "L", "L"), ("postero-anterior", "PA", "PA"), ("oblique", "", ""), ("", "", ""),
    ("LAO", "", ""),
])
def test_views_are_read_whole_or_by_their_first_word(text, whole, first):
    assert vocabulary.view_of(text, qualified=False) == whole
    assert vocabulary.view_of(text) == first


@pytest.mark.parametrize(("text", "sex"), [
    ("M", "M"), ("male", "M"), (" f ", "F"), ("Female", "F"), ("O", ""), ("Unknown", ""), ("", ""),
])
def test_sexes_are_read_by_any_usual_word(text, sex):
    assert vocabulary.sex_of(text) == sex

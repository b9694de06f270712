import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxcxr.data.label_tables import FINDINGS
from jaxcxr.errors import UserError
from jaxcxr.registry import builder_class
from jaxcxr.xray.images import image_files
from jaxcxr.xray.sources.chest_phantom import ChestPhantomConfig

# TFDS says so of every builder that gets its options as an object.
pytestmark = pytest.mark.filterwarnings("ignore:.*custom data configuration.*")


def _prepared(folder, **options):
    builder = builder_class("chest_phantom")(
        config=ChestPhantomConfig(**options), data_dir=folder, file_format="array_record"
    )
    builder.download_and_prepare()
    back = tfds.builder_from_directory(builder.data_dir)
    return back.as_data_source(decoders={"image": tfds.decode.SkipDecoding()})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return _prepared(tmp_path_factory.mktemp("here"), size=32, images=60, seed=2)


def test_records_read_back(prepared):
    assert sum(len(split) for split in prepared.values()) == 60
    for split in prepared.values():
        for record in split:
            image = image_files.decode(record["image"])
            assert image.shape == (32, 32)
            assert record["view"] in (b"PA", b"AP")
            assert record["sex"] in (b"M", b"F")
            assert record["labels"].shape == (len(FINDINGS),)
            assert set(np.unique(record["labels"])) <= {0, 1}
            # Every finding is boxed, and nothing else is.
            assert set(record["boxes"][:, 0].astype(int)) == set(np.flatnonzero(record["labels"]))


def test_no_patient_is_in_two_splits(prepared):
    patients = [{record["patient_id"] for record in split} for split in prepared.values()]
    assert sum(map(len, patients)) == len(set.union(*patients))


def _contents(prepared):
    return {
        record["image_id"]: (record["image"], record["labels"].tobytes())
        for split in prepared.values() for record in split
    }


def test_worker_processes_do_not_change_the_bytes(prepared, tmp_path):
    other = _prepared(tmp_path, size=32, images=60, seed=2, workers=1)
    assert _contents(other) == _contents(prepared)


def test_label_noise_leaves_images_and_boxes_alone(prepared, tmp_path):
    noisy = _contents(_prepared(tmp_path, size=32, images=60, seed=2, label_noise=0.3))
    clean = _contents(prepared)
    assert {k: v[0] for k, v in noisy.items()} == {k: v[0] for k, v in clean.items()}
    assert sum(noisy[k][1] != clean[k][1] for k in clean) > 50


def test_names_tell_the_options_that_change_records():
    assert ChestPhantomConfig().name == "64px_3000_enriched_seed0"
    assert ChestPhantomConfig(workers=4).name == ChestPhantomConfig().name
    config = ChestPhantomConfig(size=128, images=50, prevalence="nih", label_noise=0.05, seed=1,
                                encoding="zstd")
    assert config.name == "128px_50_nih_seed1_noise0.05_zstd"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 8}, "size is 8; allowed: 32 to 2048"),
        ({"images": 5}, "images is 5; allowed: 20"),
        ({"prevalence": "all"}, "prevalence is 'all'"),
        ({"label_noise": 0.7}, "label_noise is 0.7"),
        ({"encoding": "gif"}, "encoding is 'gif'"),
        ({"workers": -1}, "workers is -1"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(UserError, match=words):
        ChestPhantomConfig(**options)

"""Imports of torch and friends, done only when an oracle test asks for them."""

import warnings

import pytest

# Operators that `torchvision/_meta_registrations.py` describes. Where the compiled extension does
# not load (another torch build), they must be declared before `import torchvision` works.
_OPERATORS = (
    "roi_align", "_roi_align_backward", "ps_roi_align", "_ps_roi_align_backward",
    "roi_pool", "_roi_pool_backward", "ps_roi_pool", "_ps_roi_pool_backward",
    "nms", "qnms", "qroi_align", "deform_conv2d", "_deform_conv2d_backward",
)


@pytest.fixture(scope="session")
def torch():
    """The torch package on one thread, seeded."""
    module = pytest.importorskip("torch")
    module.set_num_threads(1)
    module.manual_seed(0)
    return module


@pytest.fixture(scope="session")
def torchvision(torch):
    """The torchvision package, its custom operators declared where they are missing."""
    library = torch.library.Library("torchvision", "DEF")
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor x) -> Tensor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("torchvision")


@pytest.fixture(scope="session")
def timm(torchvision):
    """The timm package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("timm")

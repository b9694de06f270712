"""Protocols: what holds of each of them, and that results of two never stand together."""

import dataclasses

import pytest

from jaxcxr.errors import UserError
from jaxcxr.pose.evaluation import protocols


def _result(name, frames=10):
    return {"protocol": name, "counts": {"frames": frames, "sequences": 2}}


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_a_protocol_is_whole(name):
    protocol = protocols.get(name)
    assert protocol.name == name
    if protocol.train_actions:
        assert not set(protocol.actions) & set(protocol.train_actions)
    else:
        assert not set(protocol.test) & set(protocol.train)
    assert set(protocol.validation) <= set(protocol.train)
    assert protocol.parents.count(-1) == 1
    assert protocol.parents[protocol.root] == -1
    for joint in range(len(protocol.joints)):  # every joint hangs on the root
        steps = 0
        while protocol.parents[joint] >= 0:
            joint, steps = protocol.parents[joint], steps + 1
            assert steps < len(protocol.joints)
    assert all(0 <= j < len(protocol.joints) for j in protocol.scored)
    for text in (protocol.notes, protocol.keypoints, protocol.source, protocol.space):
        assert text


def test_the_names_that_results_are_reported_under():
    assert set(protocols.PROTOCOLS) >= {
        "vp3d-cpn", "vp3d-gt", "motionbert-sh", "cmu-subjects", "humaneva", "mpi-inf-3dhp",
        "totalcapture", "surreal", "jta",
    }
    # 104 is in the published list of SURREAL's test, 144 in that of its training.
    assert "104" in protocols.get("surreal").test
    assert "144" in protocols.get("surreal").train
    assert protocols.get("vp3d-cpn").test == ("S9", "S11")
    assert len(protocols.get("vp3d-cpn").actions) == 15


def test_a_protocol_that_cheats_cannot_be_made():
    protocol = protocols.get("vp3d-cpn")
    with pytest.raises(ValueError, match="used before the test"):
        dataclasses.replace(protocol, train=("S1", "S8", "S9"))
    with pytest.raises(ValueError, match="used before the test"):
        dataclasses.replace(protocol, validation=("S9",))
    takes = protocols.get("totalcapture")
    with pytest.raises(ValueError, match="used before the test"):
        dataclasses.replace(takes, train_actions=(*takes.train_actions, "acting3"))
    with pytest.raises(ValueError, match="used before the test"):
        dataclasses.replace(takes, actions=())
    with pytest.raises(ValueError, match="joints, parents or unit"):
        dataclasses.replace(protocol, joints=protocol.joints[:16])
    with pytest.raises(ValueError, match="'mean'"):
        dataclasses.replace(protocol, average="mean")
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol.test = ("S1",)


def test_only_results_of_one_protocol_and_the_same_frames_stand_together():
    assert protocols.same({"a": _result("humaneva"), "b": _result("humaneva")}).name == "humaneva"
    mixed = {"a": _result("vp3d-cpn"), "b": _result("motionbert-sh"), "c": _result("vp3d-cpn")}
    with pytest.raises(UserError, match=r"vp3d-cpn: a, c; motionbert-sh: b"):
        protocols.same(mixed)
    with pytest.raises(UserError, match="a was scored on 10 frames of 2 sequences, b on 9 of 2"):
        protocols.same({"a": _result("humaneva"), "b": _result("humaneva", 9)})
    with pytest.raises(UserError, match="b: says no protocol"):
        protocols.same({"a": _result("humaneva"), "b": {"mpjpe": 3}})
    with pytest.raises(UserError, match=r"'vp3d_cpn'. Did you mean vp3d-cpn\?"):
        protocols.get("vp3d_cpn")

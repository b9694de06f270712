"""A second reading of BVH files, channel by channel, and small files."""

import numpy as np
from scipy.spatial.transform import Rotation


def places(text: str) -> dict[str, np.ndarray]:
    """Positions of the joints of a BVH file, in its unit, by its own definition."""
    hierarchy, motion = text.split("MOTION")
    names, parents, offsets, channels, stack = [], [], [], [], []
    for words in (line.split() for line in hierarchy.splitlines() if line.strip()):
        if words[0] in ("ROOT", "JOINT", "End"):
            names.append(words[1] if words[0] != "End" else f"{names[-1]}_End")
            parents.append(stack[-1] if stack else -1)
            channels.append([])
        elif words[0] == "{":
            stack.append(len(names) - 1)
        elif words[0] == "}":
            stack.pop()
        elif words[0] == "OFFSET":
            offsets.append(np.array(words[1:], float))
        elif words[0] == "CHANNELS":
            channels[-1] = words[2:]
    rows = np.array([line.split() for line in motion.strip().splitlines()[2:]], float)
    turns, places, column = [], [], 0
    for joint, parent in enumerate(parents):
        turn, shift = Rotation.identity(len(rows)), np.zeros((len(rows), 3)) + offsets[joint]
        for channel in channels[joint]:
            axis, kind = "XYZ".index(channel[0]), channel[1:]
            if kind == "position":
                shift[:, axis] += rows[:, column]
            else:
                about = np.eye(3)[axis] * np.radians(rows[:, column, None])
                turn = turn * Rotation.from_rotvec(about)
            column += 1
        if parent < 0:
            turns.append(turn)
            places.append(shift)
        else:
            turns.append(turns[parent] * turn)
            places.append(places[parent] + turns[parent].apply(shift))
    return dict(zip(names, places, strict=True))


# Trees as (name, offset in the file's unit, children); the third with names of Bandai-Namco.
def _leg(names, x, long):
    hip, knee, foot = names
    return (hip, (x, -0.05 * long, 0), [(knee, (0, -long, 0), [(foot, (0, -long, 0), [])])])


def _arm(names, x, long):
    shoulder, arm, fore, hand, *more = names
    tip = [(more[0], (0, 0, 0), [])] if more else []
    elbow = (fore, (x * long, 0, 0), [(hand, (x * 0.7 * long, 0, 0), tip)])
    return (shoulder, (0, 0, 0) if more else (x * 0.1 * long, 0.2 * long, 0), [
        (arm, (x * 0.6 * long, 0.1 * long, 0), [elbow])
    ])


def motionbuilder(scale=1.0):
    """As cgspeed converts CMU's clips, the vectors at branching joints lost."""
    def side(word, x):
        return [f"{word}{n}" for n in ("Shoulder", "Arm", "ForeArm", "Hand", "FingerBase")], x
    head = ("Neck", (0, 0, 0), [("Head", (0, 3 * scale, 0), [])])
    spine = ("Spine", (0, 2 * scale, 0), [("Spine1", (0, 2 * scale, 0), [
        head, _arm(*side("Left", 1), 5 * scale), _arm(*side("Right", -1), 5 * scale)
    ])])
    legs = [_leg([f"{w}UpLeg", f"{w}Leg", f"{w}Foot"], x * scale, 7 * scale)
            for w, x in (("Left", 1.5), ("Right", -1.5))]
    return ("Hips", (0, 0, 0), [*legs, ("LowerBack", (0, 0, 0), [spine])])


def daz(scale=1.0):
    """Centimetres; the head ends at its eyes."""
    eyes = [(f"{w}Eye", (x * scale, 8 * scale, 9 * scale), [])
            for w, x in (("left", 3), ("right", -3))]
    neck = ("neck", (0, 20 * scale, 0), [("head", (0, 10 * scale, 0), eyes)])
    arms = [_arm([f"{w}Collar", f"{w}Shldr", f"{w}ForeArm", f"{w}Hand"], x, 28 * scale)
            for w, x in (("l", 1), ("r", -1))]
    legs = [_leg([f"{w}Thigh", f"{w}Shin", f"{w}Foot"], x * scale, 40 * scale)
            for w, x in (("l", 10), ("r", -10))]
    chest = ("abdomen", (0, 15 * scale, 0), [("chest", (0, 15 * scale, 0), [neck, *arms])])
    return ("hip", (0, 0, 0), [chest, *legs])


def bandai(scale=1.0):
    """Centimetres; the end of the head lies on its joint."""
    neck = ("Neck", (0, 22 * scale, 0), [("Head", (0, 11 * scale, 0), [])])
    arms = [_arm([f"Shoulder_{w}", f"UpperArm_{w}", f"LowerArm_{w}", f"Hand_{w}"], x, 28 * scale)
            for w, x in (("L", 1), ("R", -1))]
    legs = [_leg([f"UpperLeg_{w}", f"LowerLeg_{w}", f"Foot_{w}"], x * scale, 40 * scale)
            for w, x in (("L", 10), ("R", -10))]
    chest = ("Chest", (0, 20 * scale, 0), [neck, *arms])
    return ("joint_Root", (0, 0, 0), [("Hips", (0, 90 * scale, 0), [
        ("Spine", (0, 10 * scale, 0), [chest]), *legs
    ])])


BODIES = {"motionbuilder": motionbuilder, "daz": daz, "bandai": bandai}


def text(tree, frames=30, seed=0, fps=120, order="ZYX", rest=False) -> str:
    """A BVH file in which every joint swings."""
    joints = []

    def lines(node, depth):
        name, offset, children = node
        pad = "\t" * depth
        joints.append(name)
        moves = "" if depth else "Xposition Yposition Zposition "
        turns = " ".join(f"{axis}rotation" for axis in order)
        yield f"{pad}{'JOINT' if depth else 'ROOT'} {name} "
        yield f"{pad}{{\n{pad}\tOFFSET {' '.join(f'{v:.5f}' for v in offset)}"
        yield f"{pad}\tCHANNELS {3 if depth else 6} {moves}{turns} "
        for child in children:
            yield from lines(child, depth + 1)
        if not children:
            end = 0.0 if name == "Head" and "Chest" in joints else 1.5
            yield f"{pad}\tEnd Site\n{pad}\t{{\n{pad}\t\tOFFSET 0 {end} 0\n{pad}\t}}"
        yield f"{pad}}}"

    hierarchy = list(lines(tree, 0))
    rng = np.random.default_rng(seed)
    size, phase = rng.uniform(3, 15, (2, len(joints) * 3))
    time = np.arange(frames)[:, None] / 20
    values = np.concatenate(
        [np.cumsum(np.full((frames, 3), 0.1), 0), size * np.sin(time + phase)], 1
    )
    if rest:
        values[0] = 0
    rows = [" ".join(f"{value:.5f}" for value in row) for row in values]
    return "\n".join(["HIERARCHY", *hierarchy, "MOTION", f"Frames: {frames}",
                      f"Frame Time: {1 / fps:.7f}", *rows]) + "\n"

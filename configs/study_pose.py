"""Every lifter and baseline on CMU motion capture, T = 27 and 81, true and detected keypoints.

    jaxcxr prepare cmu_mocap --raw allasfamc.zip
    jaxcxr prepare cmu_mocap --raw allasfamc.zip --noise 2 --drift 4 --dropout 0.01
        --outliers 0.005 --occlusion 0.03 --swap 0.005
    jaxcxr study --config=configs/study_pose.py --workdir=runs/study_pose
    python -m jaxcxr.main --config=configs/study_pose.py:clean_27 --workdir=runs/temporal

The settings are clean_27, noisy_27, clean_81 and noisy_81: which keypoints, and frames a window.
Subjects 01 and 02 train, 15 % of their clips are held out for validation, 03 and 11 test. The
detector is 6.1 px off on average of an image 1,000 px wide, and misses 3.9 % of the joints.

**Equal budget**: every run sees 388,800 frames whose joints are its targets, four times the
training frames: 600 steps of 648 frames, 24 windows of 27 or 8 of 81. Frames, not seconds, because
they are the same on every machine and for both lengths, and do not depend on what else runs; what a
row costs in seconds stands beside it. Widths are such that rows need about 1 MFLOP per frame, since
at equal parameters a row with a token for each joint would need 17 times the FLOPs.
All rows have one optimiser, schedule, augmentation and loss, and neither dropout nor drop-path,
which four passes do not need. AdamW with a short warm-up, since RAdam's rectification holds short
runs back (gru after 180 steps: 137 mm on validation, with AdamW 100).

Tuned on the validation clips alone, by 150 steps at T = 27 with true keypoints, one seed: a
learning rate for each kind of network, of 1e-3, 3e-3 and 1e-2 (`RATES`), and a little of the
structure; docs/results.md has what each gave. Rows with flexible heads take rate and structure of
their plain row, and their heads are those of the row "adaptive" of configs/study_flex.py, over
joints too: nothing is tuned on them. The rows -windows were added after 23 runs, since the learned
spans over frames had all shrunk to 0 in them: heads with windows set by hand and one that sees
everything.

Rows beside their names. `frame`: Martinez et al. 2017. `convolution-192`: VideoPose3D's geometry
with 192 channels; its 1,024 take 25 times the FLOPs, which two cores do not have in this budget.
`convolution-192-center` is the same trained as its authors do, each target the middle frame of a
window of its own, so that it reads T times the frames; its MFLOPs and ms are those of one lifted
frame, where other rows lift T. `seq2seq` has Bahdanau attention, `encoder-decoder` is a
transformer; their teacher is the true poses with noise of 0.1 and 0.3 m: without it the next pose
is too easy.

The first seed is run for all rows, the two others for the three rows of each setting that are best
on validation, for the best row without flexible heads, which is the reference, and for the best
with them.

Hypothesis, written before any run of the study: in each setting the best row with flexible heads
has a lower MPJPE than the reference (convolutions and plain attention among it), the interval of
the difference leaving out 0. Refuted in all four: `convolution-192-center` is ahead, see
docs/results.md.
"""

from jaxcxr import config as base
from jaxcxr.errors import UserError
from jaxcxr.study import Study

DETECTOR = {
    "noise": 2.0, "drift": 4.0, "dropout": 0.01, "outliers": 0.005, "occlusion": 0.03,
    "swap": 0.005,
}
KEYPOINTS = {"clean": {}, "noisy": DETECTOR}
SETTINGS = {f"{name}_{frames}": (name, frames) for frames in (27, 81) for name in KEYPOINTS}
FRAMES_A_STEP, STEPS = 648, "600 steps"
# Kinds of flexible heads, over frames and over joints.
HEADS = {
    "flexible": ("4*adaptive(ramp=4,init=-1,loss=0.01)", "4*adaptive(ramp=2,init=-1,loss=0.01)"),
    "windows": ("1*fixed(2)+1*fixed(4)+1*fixed(8)+1*global",
                "1*fixed(1)+1*fixed(2)+1*fixed(4)+1*global"),
}

RATES = {
    "dense": 3e-3, "recurrent": 1e-2, "written": 3e-3, "frame_tokens": 3e-3, "joint_tokens": 3e-2,
}
# Of learned spans, shares of the largest distance: that of configs/study_flex.py, for all rows.
SPAN_RATE = 3e-2


def get_config(arg: str = "clean_27"):
    if arg not in SETTINGS:
        raise UserError(f"configs/study_pose.py takes {', '.join(SETTINGS)}, not {arg!r}.")
    keypoints, frames = SETTINGS[arg]
    config = base.default("pose")
    base.set_source(config, "cmu_mocap", **KEYPOINTS[keypoints])
    config.data.frames = frames
    config.batch_size = FRAMES_A_STEP // frames
    config.loss.velocity = 0.5
    base.add_stage(
        config, "all", STEPS, learning_rate=3e-3, optimizer__name="adamw",
        optimizer__weight_decay=0.05, optimizer__clip_norm=1.0, warmup__name="linear",
        warmup__steps=30, decay__name="cosine",
    )
    config.evaluate_every = config.checkpoint.every = STEPS
    config.log_every = 25
    base.set_model(config, "pose_temporal", dim=128, depth=3, heads=4, drop_path=0.0)
    return config


def row(model, rate, change=None, **options):
    """A row with this model and these options, and one of `RATES`."""
    span = SPAN_RATE / RATES[rate]
    rules = ((r"(^|/)group_\d+/span$", span), (r".*", 1.0))

    def overrides(context):
        base.set_model(context.config, model, **options)
        more = {} if change is None else change(context.config)
        return {"stages.all.learning_rate": RATES[rate],
                "stages.all.optimizer.multiplier_rules": rules, **more}

    return overrides


def centered(config):
    """One lifted frame in each window; neighbours one frame apart are windows of their own."""
    # The error of differences needs neighbouring frames, of which a window has none.
    return {"data.target": "center", "batch_size": FRAMES_A_STEP, "loss.velocity": 0.0}


def convolution(change=None):
    """VideoPose3D's, with a receptive field of the whole window."""

    def overrides(context):
        widths = (3,) * {27: 3, 81: 4}[context.config.data.frames]
        return row("pose_convolution", "dense", change, channels=192, widths=widths, dropout=0.0,
                   inputs="standardized")(context)

    return overrides


def transformers():
    """Plain and flexible rows of each transformer."""
    rows = {}
    for name, model, rate, options in (
        ("temporal", "pose_temporal", "frame_tokens", {"dim": 128, "depth": 3}),
        ("spatiotemporal", "pose_spatiotemporal", "joint_tokens", {"dim": 32, "depth": 2}),
        ("dual", "pose_dual_stream", "joint_tokens", {"dim": 32, "depth": 1}),
    ):
        common = {"heads": 4, "drop_path": 0.0, "norm": "tfixup", **options}
        rows[name] = row(model, rate, **common)
        for kind, (over_frames, over_joints) in HEADS.items():
            joints = {"joint_attention": over_joints} if rate == "joint_tokens" else {}
            rows[f"{name}-{kind}"] = row(
                model, rate, **common, attention=over_frames, **joints)
    return rows


def get_study():
    recurrent = ("pose_recurrent", "recurrent")
    rows = {
        "frame": row("pose_frame", "dense", width=256, dropout=0.0, inputs="standardized"),
        "lstm": row(*recurrent, cell="lstm", width=128),
        "gru": row(*recurrent, cell="gru", width=160),
        "bilstm": row(*recurrent, cell="lstm", width=96, bidirectional=True),
        "seq2seq": row("pose_seq2seq", "written", width=128, teacher_noise=0.1),
        "encoder-decoder": row(
            "pose_encoder_decoder", "written", dim=96, encoder_depth=2, decoder_depth=2,
            mlp_ratio=2.0, teacher_noise=0.3, norm="tfixup",
        ),
        "convolution-192": convolution(),
        "convolution-192-center": convolution(centered),
        **transformers(),
    }
    plain = tuple(name for name in rows if not name.endswith(tuple(HEADS)))
    return Study(tuple(SETTINGS), rows, reference=plain, finalists=3)

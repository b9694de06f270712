"""The torch counterpart of a training step, in a process of its own.

    python -P tests/bench/torch_peer.py SPEC

Imports nothing of jaxcxr or JAX, so that any Python that has torch can run it. SPEC is JSON, made
by `train_spec`. The process prints one line of JSON that says what it has built; then, for
each line on its standard input, a number of steps, it does so many and prints the seconds of each.

A step does what ours does: forward pass, loss, gradients, update, moving average of the parameters.
The batch lies in memory and is random.
"""

import copy
import json
import math
import sys
import time
import warnings

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Self-attention by torch's fused kernel, over `[batch, tokens, dim]`."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        """Attends within each sequence."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(query, key, value)
        return self.out(y.transpose(1, 2).reshape(batch, tokens, dim))


class Block(nn.Module):
    """Pre-norm encoder block with stochastic depth."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, drop_path: float):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=1e-6) for _ in range(2))
        self.attention = Attention(dim, heads)
        width = round(dim * mlp_ratio)
        self.fc1, self.fc2 = nn.Linear(dim, width), nn.Linear(width, dim)
        self.drop_path = drop_path

    def _kept(self, y):
        if not self.drop_path or not self.training:
            return y
        keep = 1.0 - self.drop_path
        return y * (torch.rand(len(y), 1, 1, device=y.device) < keep).to(y.dtype).div_(keep)

    def forward(self, x):
        """Encodes `[batch, tokens, dim]`."""
        x = x + self._kept(self.attention(self.norm1(x)))
        return x + self._kept(self.fc2(F.gelu(self.fc1(self.norm2(x)))))


class PoseLifter(nn.Module):
    """The transformers of `jaxcxr.models.pose`: tokens of frames, or of joints and frames."""

    def __init__(self, spec):
        super().__init__()
        dim, depth, self.joint_tokens = spec["dim"], spec["depth"], spec["joint_tokens"]
        self.joints = spec["joints"]
        self.embed = nn.Linear(6 if self.joint_tokens else 3 * self.joints + 3, dim)
        self.head = nn.Linear(dim, 3 if self.joint_tokens else 3 * self.joints)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        rates = [spec["drop_path"] * i / max(depth - 1, 1) for i in range(depth)]
        make = [(dim, spec["heads"], spec["mlp_ratio"], rate) for rate in rates]
        self.over_frames = nn.ModuleList(Block(*options) for options in make)
        self.over_joints = nn.ModuleList(Block(*o) for o in make if self.joint_tokens)
        if self.joint_tokens:
            self.joint_embed = nn.Parameter(0.5 * torch.randn(self.joints, dim))
        nn.init.normal_(self.head.weight, std=1e-3)
        angles = torch.arange(spec["frames"])[:, None] / 10000.0 ** (torch.arange(0, dim, 2) / dim)
        codes = torch.stack([angles.sin(), angles.cos()], -1).reshape(spec["frames"], dim)
        self.register_buffer("codes", codes, persistent=False)

    def forward(self, keypoints):
        """Lifts `[batch, frames, joints, 3]` (x, y, confidence)."""
        pose, place = standardize(keypoints)
        return self._of_joints(pose, place) if self.joint_tokens else self._of_frames(pose, place)

    def _of_frames(self, pose, place):
        x = self.embed(torch.cat([pose.flatten(2), place], -1)) + self.codes
        for block in self.over_frames:
            x = block(x)
        return self.head(self.norm(x)).view(*pose.shape)

    def _of_joints(self, pose, place):
        batch, frames, joints = pose.shape[:3]
        x = self.embed(torch.cat([pose, place[:, :, None].expand(pose.shape)], -1))
        x = x + self.joint_embed + self.codes[:, None]
        for of_joints, of_frames in zip(self.over_joints, self.over_frames, strict=True):
            x = of_joints(x.reshape(batch * frames, joints, -1))
            x = x.view(batch, frames, joints, -1).transpose(1, 2)
            x = of_frames(x.reshape(batch * joints, frames, -1))
            x = x.view(batch, joints, frames, -1).transpose(1, 2)
        return self.head(self.norm(x))


def standardize(keypoints):
    """Pose of unit extent about its centre, `[..., joints, 3]`, and `[..., 3]`: where, how large.

    As `jaxcxr.models.pose.inputs_outputs.standardize`.
    """
    confidence = keypoints[..., 2:]
    weight = confidence.clamp(min=0.0)
    xy = torch.where(weight > 0, keypoints[..., :2], 0.0)
    weight = weight / weight.sum(-2, keepdim=True).clamp(min=1e-6)
    centre = (weight * xy).sum(-2, keepdim=True)
    offset = torch.where(weight > 0, xy - centre, 0.0)
    extent = ((weight * offset**2).sum((-2, -1), keepdim=True) + 0.01**2).sqrt()
    return (
        torch.cat([offset / extent, confidence], -1),
        torch.cat([centre, extent.log()], -1)[..., 0, :],
    )


def _torchvision():
    # A torchvision installed without its compiled operators (`pip install --no-deps` beside
    # another torch) fails on import, because it describes operators that nobody has declared.
    library = torch.library.Library("torchvision", "DEF")
    for name in (
        "roi_align", "_roi_align_backward", "ps_roi_align", "_ps_roi_align_backward",
        "roi_pool", "_roi_pool_backward", "ps_roi_pool", "_ps_roi_pool_backward",
        "nms", "qnms", "qroi_align", "deform_conv2d", "_deform_conv2d_backward",
    ):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor x) -> Tensor")
    warnings.simplefilter("ignore")
    import torchvision

    return torchvision, library  # the declarations live as long as the library


def resnet(spec):
    """torchvision's ResNet for one gray channel, with the head of `models.vision.classifier`."""
    torchvision, _library = _torchvision()
    resnets = torchvision.models.resnet
    block = resnets.Bottleneck if spec["bottleneck"] else resnets.BasicBlock
    network = resnets.ResNet(block, list(spec["stages"]), num_classes=spec["classes"])
    network.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    features = network.fc.in_features
    if spec["head_width"]:
        network.fc = nn.Sequential(
            nn.Linear(features, spec["head_width"]), nn.ReLU(), nn.Dropout(spec["head_dropout"]),
            nn.Linear(spec["head_width"], spec["classes"]),
        )
    return network.to(memory_format=torch.channels_last)


def vit(spec):
    """timm's VisionTransformer for one gray channel."""
    _library = _torchvision()
    from timm.models import vision_transformer

    token = spec["pool"] == "token"
    return vision_transformer.VisionTransformer(
        img_size=spec["image_size"], patch_size=spec["patch"], in_chans=1,
        num_classes=spec["classes"], global_pool="token" if token else "avg", class_token=token,
        embed_dim=spec["dim"], depth=spec["depth"], num_heads=spec["heads"],
        mlp_ratio=spec["mlp_ratio"], drop_path_rate=spec["drop_path"], fc_norm=False,
    )


def pose_loss(spec):
    """Mean distance of joints, and of their velocities, of `jaxcxr.pose.losses`."""

    def norm(x):
        return ((x * x).sum(-1) + 1e-12).sqrt()

    def loss(outputs, target):
        error = outputs.float() - target
        total = spec["position"] * norm(error).mean()
        if spec["velocity"]:
            total = total + spec["velocity"] * norm(error.diff(dim=1)).mean()
        return total

    return loss


def findings_loss(spec):
    """Binary cross-entropy over labels, some of which are unknown."""

    def loss(logits, labels):
        known = (labels >= 0).float()
        return F.binary_cross_entropy_with_logits(
            logits.float(), labels.clamp(min=0.0), known, reduction="sum"
        ) / known.sum()

    return loss


def example(spec, device):
    """A random batch: inputs and targets."""
    generator = torch.Generator().manual_seed(0)
    if spec["kind"] == "pose":
        shape = (spec["batch"], spec["frames"], spec["joints"], 3)
        inputs, target = (torch.rand(shape, generator=generator) for _ in range(2))
    else:
        size = spec["image_size"]
        inputs = torch.randn(spec["batch"], 1, size, size, generator=generator)
        target = torch.randint(-1, 2, (spec["batch"], spec["classes"]), generator=generator).float()
    if spec["kind"] == "resnet":
        inputs = inputs.to(memory_format=torch.channels_last)
    return inputs.to(device), target.to(device)


def optimizer(spec, model):
    """The config's optimiser, in its fastest form, no decay on vectors and positions."""
    named = list(model.named_parameters())
    plain = [p for n, p in named if p.ndim < 2 or "embed" in n or "cls_token" in n]
    chosen = {id(p) for p in plain}
    groups = [
        {"params": [p for _, p in named if id(p) not in chosen],
         "weight_decay": spec["weight_decay"]},
        {"params": plain, "weight_decay": 0.0},
    ]
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "radam": torch.optim.RAdam,
             "sgd": torch.optim.SGD}
    options = {"lr": spec["learning_rate"]}
    if spec["optimizer"] == "sgd":
        options |= {"momentum": spec["momentum"]}
    if spec["optimizer"] == "radam":
        options |= {"decoupled_weight_decay": True, "foreach": True}
    else:
        options |= {"fused": True}
    return kinds[spec["optimizer"]](groups, **options)


class Training:
    """The model, its optimiser and one batch."""

    def __init__(self, spec):
        torch.manual_seed(0)
        self.device = torch.device(spec["device"])
        torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as JAX does by default
        self.model = {"pose": PoseLifter, "resnet": resnet, "vit": vit}[spec["kind"]](spec)
        self.model = self.model.to(self.device).train()
        self.inputs, self.target = example(spec, self.device)
        self.loss = (pose_loss if spec["kind"] == "pose" else findings_loss)(spec)
        self.parameters = list(self.model.parameters())
        self.optimizer = optimizer(spec, self.model)
        self.clip, self.decay = spec["clip_norm"], spec["ema_decay"]
        self.average = [p.detach().clone() for p in self.parameters] if self.decay else []
        self.half = spec["dtype"] == "bfloat16"
        self.forward = self.model

    def step(self):
        """One update."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            outputs = self.forward(self.inputs)
        loss = self.loss(outputs, self.target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.parameters, self.clip, foreach=True)
        self.optimizer.step()
        if self.decay:
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 1.0 - self.decay)

    def timed(self, count: int):
        """Seconds and CPU seconds of each of so many steps."""
        found = []
        for _ in range(count):
            clock, used = time.perf_counter(), time.process_time()
            self.step()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            found.append((time.perf_counter() - clock, time.process_time() - used))
        return found

    def compile_if_faster(self, mode: str) -> str:
        """Lets torch.compile work on the model; "auto" keeps it where three steps are faster."""
        self.timed(2)
        if mode == "off":
            return "eager"
        plain = min(self.timed(3))[0]
        self.forward = torch.compile(copy.copy(self.model))
        try:
            self.timed(3)
            compiled = min(self.timed(3))[0]
        except Exception as error:
            if mode == "on":
                raise
            # Whatever the compiler stumbles on here, the plain modules run.
            self.forward = self.model
            return f"eager (torch.compile: {type(error).__name__})"
        said = f"{compiled / plain:.2f} of eager's time"
        if mode == "auto" and compiled > plain:
            self.forward = self.model
            return f"eager (torch.compile takes {said})"
        return f"torch.compile ({said})"


def main() -> None:
    """Answers on the real standard output; whatever libraries print goes to the error output."""
    answers, sys.stdout = sys.stdout, sys.stderr
    spec = json.loads(sys.argv[1])
    training = Training(spec)
    built = {
        "parameters": sum(math.prod(p.shape) for p in training.parameters),
        "how": training.compile_if_faster(spec["compile"]),
        "version": torch.__version__,
    }
    print(json.dumps(built), file=answers, flush=True)
    for line in sys.stdin:
        steps = training.timed(int(line))
        cuda = training.device.type == "cuda"
        memory = torch.cuda.max_memory_allocated() if cuda else None
        print(json.dumps({"steps": steps, "memory": memory}), file=answers, flush=True)


if __name__ == "__main__":
    main()

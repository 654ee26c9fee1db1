"""What a detector's speed is compared with, and whether that computes the same."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Optional

import torch
from mmdet.models import BaseDetector
from mmengine.config import Config
from mmengine.utils import get_installed_path
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mixdet.backbones import MixNet
from mixdet.backbones.base import EXPANSION, HEAD
from mixdet.deploy.export import OPSET, quiet
from mixdet.deploy.fusing import fuse
from mixdet.errors import UserError
from mixdet.layers import set_mixconv_impl
from mixdet.registry import MODELS
from mixdet.weights import fill
from mixdet.weights.pytorch import timm_entries

TOLERANCE = 1e-3  # of an output's largest value, against float64; with random weights rounding alone gives up to 1e-4
MMDET_SSDLITE = ('.mim', 'configs', 'ssd', 'ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py')


class Alternative(NamedTuple):
    """One way to compute a network: a detector, or a backbone alone.

    ``run`` takes images (N, 3, H, W), in channels_last or not; ``model`` is what a training step trains, None where
    there is none; ``same``: whether it has to give what the first alternative gives.
    """

    name: str
    run: Callable[[Tensor], object]
    model: Optional[nn.Module]
    channels_last: bool
    same: bool


def build(cfg: Config) -> nn.Module:
    """The detector of ``cfg`` with random weights; MMDetection's SSD gets a head that predicts."""
    torch.manual_seed(0)
    model = copy.deepcopy(cfg.model)
    head = model.get('bbox_head')
    if isinstance(head, dict) and head.get('type') in ('SSDHead', 'mmdet.SSDHead'):
        head['type'] = 'mixdet.SSDHead'
    return MODELS.build(model)


def mmdet_config() -> str:
    """The file of MMDetection's own SSDLite-MobileNetV2. Raises UserError if the installed package has none."""
    path = Path(get_installed_path('mmdet'), *MMDET_SSDLITE)
    if not path.is_file():
        raise UserError(f'the installed mmdet has no {Path(*MMDET_SSDLITE)}; give the config of a checkout instead')
    return str(path)


def outputs(model: Callable, x: Tensor) -> list[Tensor]:
    """All tensors that a detector's network, or a backbone, gives for images (N, 3, H, W)."""
    return list(_flat(model(x, mode='tensor') if isinstance(model, BaseDetector) else model(x)))


def _flat(value) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    else:
        for part in value:
            yield from _flat(part)


@torch.no_grad()
def settle(model: nn.Module, x: Tensor) -> nn.Module:
    """Give the batch-norms statistics of images ``x``: with untrained ones activations vanish from layer to layer.

    Half of each mean is left in: what varies in random layers is small beside it, and to take all away would turn
    their rounding errors into the result.
    """

    def measure(norm: nn.Module, inputs: tuple) -> None:
        values = inputs[0].transpose(0, 1).flatten(1)
        norm.running_mean.copy_(values.mean(1) / 2)
        norm.running_var.copy_((values - norm.running_mean[:, None]).square().mean(1))

    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    outputs(model.eval(), x)
    for hook in hooks:
        hook.remove()
    return model


def alternative(
    name: str, model: nn.Module, channels_last: bool, same: bool = False, trains: bool = True
) -> Alternative:
    """``model`` as it is, in that layout."""
    model = model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format).eval()
    return Alternative(name, lambda x: outputs(model, x), model if trains else None, channels_last, same)


def fused(name: str, model: nn.Module, same: bool) -> Alternative:
    """``model`` made for inference; ``same``: it is the network that others are checked against."""
    return alternative(f'{name}, fused', fuse(model), channels_last=True, same=same, trains=False)


def split(name: str, model: nn.Module) -> Alternative:
    """``model`` as stock PyTorch and timm compute it: group by group and a concatenation, NCHW."""
    return alternative(f'{name}, split NCHW', set_mixconv_impl(copy.deepcopy(model), 'split'), False, same=True)


def onnxruntime(name: str, model: nn.Module) -> Alternative:
    """``model`` through ONNX Runtime on as many threads as PyTorch has. Raises UserError if that is missing."""
    return Alternative(f'{name}, ONNX Runtime', OnnxNetwork(fuse(model, 'export')), None, False, same=True)


class OnnxNetwork:
    """A network in ONNX Runtime; each shape of input has a graph of its own, exported when it is first met."""

    def __init__(self, model: nn.Module) -> None:
        try:
            import onnxruntime
            import onnxscript  # noqa: F401  (what torch writes ONNX with)
        except ImportError as error:
            raise UserError(f"--against onnxruntime: {error}; pip install -e '.[onnx]'") from error
        self.runtime = onnxruntime
        self.network = _Outputs(model)
        self.sessions: dict = {}

    def __call__(self, x: Tensor) -> list[Tensor]:
        if x.shape not in self.sessions:
            self.sessions[x.shape] = self._session(x)
        return [torch.from_numpy(out) for out in self.sessions[x.shape].run(None, {'image': x.numpy()})]

    def _session(self, x: Tensor):
        with quiet():
            program = torch.onnx.export(
                self.network, (x,), dynamo=True, opset_version=OPSET, input_names=['image'], verbose=False
            )
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # its threads would go on spinning in the others' turns
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        graph = program.model_proto.SerializeToString()
        return self.runtime.InferenceSession(graph, options, providers=['CPUExecutionProvider'])


class _Outputs(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(outputs(self.model, x))


def timm_mixnet(backbone: nn.Module, cfg: dict, x: Tensor) -> Alternative:
    """timm's MixNet in eager NCHW with the outputs of ``backbone``, which takes over its weights.

    Args:
        backbone: our MixNet.
        cfg: its config.
        x: images for the statistics of its batch-norms.

    Raises:
        UserError: if it is another network, or one that timm has not, or timm is missing.
    """
    if not isinstance(backbone, MixNet):
        raise UserError(f'--against timm: timm has the MixNets, and the backbone here is a {type(backbone).__name__}')
    try:
        import timm
    except Exception as error:  # a torchvision built for another torch fails in its own ways
        raise UserError(f'--against timm: timm cannot be imported ({error}); pip install timm torchvision') from error
    name = f'{"tf_" * (cfg.get("padding") == "same")}mixnet_{cfg.get("arch", "s")}'
    model = timm.create_model(name)
    eps = next(module.eps for module in backbone.modules() if isinstance(module, _BatchNorm))
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eps = eps
    peer = settle(TimmMixNet(model, backbone), x)
    kept = {key: value.numpy() for key, value in model.state_dict().items()}
    fill(backbone, timm_entries(backbone), kept, allow=('classifier.*', 'conv_head.*', 'bn2.*', 'blocks.*'))
    return alternative(f"timm's {name}, NCHW", peer, False, same=True)


class TimmMixNet(nn.Module):
    """timm's MixNet ``model``, in its own modules, as deep as ``backbone`` and with that one's outputs."""

    def __init__(self, model: nn.Module, backbone: MixNet) -> None:
        super().__init__()
        ours = [*backbone.stem[1:], *(block for stage in backbone.stages for block in stage)]
        self.stem = nn.Sequential(model.conv_stem, model.bn1)
        self.blocks = nn.ModuleList(
            block for _, block in zip(ours, (block for stage in model.blocks for block in stage))
        )
        self.head = nn.Sequential(model.conv_head, model.bn2) if backbone.head is not None else None
        self.out_indices = backbone.out_indices
        self.ends = {ours.index(stage[-1]): i for i, stage in enumerate(backbone.stages)}
        self.expansion: Optional[Tensor] = None
        if EXPANSION in self.out_indices:
            wide = self.blocks[ours.index(backbone.stages[-1][0])]
            wide.bn1.register_forward_hook(lambda module, inputs, output: setattr(self, EXPANSION, output))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """As our MixNet's."""
        features = {}
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.ends:
                features[self.ends[i]] = x
        if self.head is not None:
            features[HEAD] = self.head(x)
        features[EXPANSION], self.expansion = self.expansion, None
        return tuple(features[i] for i in self.out_indices)


@torch.no_grad()
def differences(model: nn.Module, alternatives: list[Alternative], x: Tensor) -> dict[str, float]:
    """How far each alternative that has to give the same is from ``model`` in float64, relative to the largest value.

    Raises:
        UserError: if one is not within ``TOLERANCE``, or its outputs are others.
    """
    exact = set_mixconv_impl(copy.deepcopy(model), 'split').to(memory_format=torch.contiguous_format).double().eval()
    expected = outputs(exact, x.double())
    found = {}
    for other in alternatives:
        if not other.same:
            continue
        actual = list(other.run(x.to(memory_format=torch.channels_last) if other.channels_last else x))
        if [tuple(out.shape) for out in actual] != [tuple(out.shape) for out in expected]:
            raise UserError(f'{other.name} gives other outputs than the network it should compute')
        found[other.name] = max(
            ((out - wanted).abs().max() / wanted.abs().max()).item() for out, wanted in zip(actual, expected)
        )
        if not found[other.name] < TOLERANCE:
            raise UserError(f'{other.name} is wrong by {found[other.name]:.1e} of the largest value')
    return found

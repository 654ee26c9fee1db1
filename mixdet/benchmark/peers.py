"""The networks whose speed is compared, and a check that those which should compute the same do."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Union

import torch
from mmdet.models import BaseDetector
from mmengine.config import Config
from mmengine.utils import get_installed_path
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mixdet.backbones import MixNet
from mixdet.backbones.base import EXPANSION, HEAD
from mixdet.deploy.export import require_torch
from mixdet.deploy.formats.base import quiet
from mixdet.deploy.formats.onnx import FORMAT, OPSET
from mixdet.deploy.fusing import fuse
from mixdet.errors import UserError
from mixdet.layers import set_mixconv_impl
from mixdet.registry import MODELS
from mixdet.weights import fill
from mixdet.weights.pytorch import timm_entries

if TYPE_CHECKING:
    from timm.models import EfficientNet

# relative to the largest value of an output in float64; over eight images rounding alone gave up to 3e-4 with random
# weights, over one image up to 1.2e-3
TOLERANCE = 1e-3
MMDET_SSDLITE = ('.mim', 'configs', 'ssd', 'ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py')


class Peer(NamedTuple):
    """One of the networks that are compared: a detector or a backbone, and how it is computed.

    Attributes:
        name: the label in tables and pictures.
        run: computes the network from images (N, 3, H, W).
        model: the module that a training step trains; None for inference only.
        channels_last: the memory format of its images.
        same_network: whether its outputs must equal those of the network that is benchmarked.
    """

    name: str
    run: Callable[[Tensor], Any]
    model: Optional[nn.Module]
    channels_last: bool
    same_network: bool

    @property
    def in_pytorch(self) -> bool:
        """Whether PyTorch computes it, whose profiler then sees its memory and operators."""
        return not isinstance(self.run, OnnxNetwork)


def build_detector(cfg: Config) -> nn.Module:
    """The detector of ``cfg`` with random weights; MMDetection's SSD gets mixdet's head, whose inference works."""
    torch.manual_seed(0)
    model = copy.deepcopy(cfg.model)
    head = model.get('bbox_head')
    if isinstance(head, dict) and head.get('type') in ('SSDHead', 'mmdet.SSDHead'):
        head['type'] = 'mixdet.SSDHead'
    return MODELS.build(model)


def mmdet_ssdlite_config() -> str:
    """The path of MMDetection's own SSDLite-MobileNetV2 config.

    Raises UserError if the installed package does not contain it.
    """
    path = Path(get_installed_path('mmdet'), *MMDET_SSDLITE)
    if not path.is_file():
        raise UserError(f'the installed mmdet has no {Path(*MMDET_SSDLITE)}; give the config of a checkout instead')
    return str(path)


def network_outputs(model: Callable, x: Tensor) -> list[Tensor]:
    """All output tensors of a detector's network, or of a backbone, for images (N, 3, H, W)."""
    return list(_tensors(model(x, mode='tensor') if isinstance(model, BaseDetector) else model(x)))


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    else:
        for part in value:
            yield from _tensors(part)


@torch.no_grad()
def calibrate_norms(model: nn.Module, x: Tensor) -> nn.Module:
    """Set the batch-norm statistics from images ``x``: with untrained ones activations vanish from layer to layer.

    Half of each mean is left in: in random layers the variation is small beside the mean, and subtracting all of it
    would leave little but rounding errors.
    """

    def set_statistics(norm: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        assert norm.running_mean is not None and norm.running_var is not None
        values = inputs[0].transpose(0, 1).flatten(1)
        norm.running_mean.copy_(values.mean(1) / 2)
        norm.running_var.copy_((values - norm.running_mean[:, None]).square().mean(1))

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    hooks = [norm.register_forward_pre_hook(set_statistics) for norm in norms]
    network_outputs(model.eval(), x)
    for hook in hooks:
        hook.remove()
    return model


def _in_memory_format(model: nn.Module, channels_last: bool) -> nn.Module:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return model.to(memory_format=memory_format)  # type: ignore[call-overload]  # PyTorch's stub lacks this overload


def eager_peer(
    name: str, model: nn.Module, channels_last: bool, same_network: bool = False, trains: bool = True
) -> Peer:
    """``model`` as it is, in that memory format."""
    model = _in_memory_format(model, channels_last).eval()
    return Peer(name, lambda x: network_outputs(model, x), model if trains else None, channels_last, same_network)


def fused_peer(name: str, model: nn.Module, same_network: bool) -> Peer:
    """``model`` fused for inference, in channels_last."""
    return eager_peer(f'{name}, fused', fuse(model), True, same_network, trains=False)


def split_peer(name: str, model: nn.Module) -> Peer:
    """``model`` as stock PyTorch and timm compute it: group by group and a concatenation, NCHW."""
    return eager_peer(f'{name}, split NCHW', set_mixconv_impl(copy.deepcopy(model), 'split'), False, same_network=True)


def onnxruntime_peer(name: str, model: nn.Module) -> Peer:
    """``model`` in ONNX Runtime, with as many threads as PyTorch.

    Raises UserError if that is not installed, or PyTorch is too old to export to ONNX.
    """
    require_torch(FORMAT.minimum_torch, '--against onnxruntime')
    return Peer(f'{name}, ONNX Runtime', OnnxNetwork(fuse(model, 'export')), None, False, same_network=True)


class OnnxNetwork:
    """A network in ONNX Runtime; each input shape has a graph of its own, exported on its first use."""

    def __init__(self, model: nn.Module) -> None:
        try:
            import onnxruntime
            import onnxscript  # noqa: F401  (torch.onnx needs it)
        except ImportError as error:
            raise UserError(f"--against onnxruntime: {error}; pip install -e '.[onnx]'") from error
        self.runtime = onnxruntime
        self.network = _FlatOutputs(model)
        self.sessions: dict[torch.Size, Any] = {}

    def __call__(self, x: Tensor) -> list[Tensor]:
        """The outputs for images (N, 3, H, W)."""
        if x.shape not in self.sessions:
            self.sessions[x.shape] = self._session(x)
        return [torch.from_numpy(out) for out in self.sessions[x.shape].run(None, {'image': x.numpy()})]

    def _session(self, x: Tensor) -> Any:
        with quiet():
            program = torch.onnx.export(
                self.network, (x,), dynamo=True, opset_version=OPSET, input_names=['image'], verbose=False
            )
        assert program is not None  # with dynamo=True
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # its threads would keep spinning while the other networks are timed
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        graph = program.model_proto.SerializeToString()
        return self.runtime.InferenceSession(graph, options, providers=['CPUExecutionProvider'])


class _FlatOutputs(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(network_outputs(self.model, x))


def timm_peer(backbone: nn.Module, cfg: dict, x: Tensor) -> Peer:
    """timm's MixNet in eager NCHW with the outputs of ``backbone``, into which its weights are copied.

    Args:
        backbone: a MixNet of mixdet.
        cfg: its config.
        x: images for the statistics of timm's batch-norms.

    Raises:
        UserError: if the backbone is not a MixNet, or timm is not installed.
    """
    if not isinstance(backbone, MixNet):
        raise UserError(f'--against timm: timm has the MixNets, and the backbone here is a {type(backbone).__name__}')
    try:
        import timm
    except Exception as error:  # a torchvision built for another torch raises various errors
        raise UserError(f'--against timm: timm cannot be imported ({error}); pip install timm torchvision') from error
    name = f'{"tf_" * (cfg.get("padding") == "same")}mixnet_{cfg.get("arch", "s")}'
    model = timm.create_model(name)
    eps = next(module.eps for module in backbone.modules() if isinstance(module, _BatchNorm))
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eps = eps
    network = calibrate_norms(TimmMixNet(model, backbone), x)
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    fill(backbone, timm_entries(backbone), weights, allow=('classifier.*', 'conv_head.*', 'bn2.*', 'blocks.*'))
    return eager_peer(f"timm's {name}, NCHW", network, False, same_network=True)


class TimmMixNet(nn.Module):
    """timm's MixNet ``model``, made of its own modules, cut to the depth and outputs of ``backbone``."""

    def __init__(self, model: 'EfficientNet', backbone: MixNet) -> None:
        super().__init__()
        stages = [list(stage.children()) for stage in backbone.stages]
        ours = [*list(backbone.stem)[1:], *(block for stage in stages for block in stage)]
        blocks = [block for stage in model.blocks for block in stage][: len(ours)]
        self.stem = nn.Sequential(model.conv_stem, model.bn1)
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Sequential(model.conv_head, model.bn2) if backbone.head is not None else None
        self.out_indices = backbone.out_indices
        self.stage_of_last_block = {ours.index(stage[-1]): i for i, stage in enumerate(stages)}
        self.expansion: Optional[Tensor] = None
        if EXPANSION in self.out_indices:
            blocks[ours.index(stages[-1][0])].bn1.register_forward_hook(self._keep_expansion)

    def _keep_expansion(self, norm: nn.Module, inputs: tuple, output: Tensor) -> None:
        self.expansion = output

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The outputs of mixdet's MixNet for images (N, 3, H, W)."""
        features: dict[Union[int, str], Tensor] = {}
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.stage_of_last_block:
                features[self.stage_of_last_block[i]] = x
        if self.head is not None:
            features[HEAD] = self.head(x)
        if self.expansion is not None:
            features[EXPANSION], self.expansion = self.expansion, None
        return tuple(features[i] for i in self.out_indices)


@torch.no_grad()
def float64_errors(model: nn.Module, peers: list[Peer], x: Tensor) -> dict[str, float]:
    """The largest difference of each peer with ``same_network`` from ``model`` in float64, relative to the largest
    value of the output.

    Args:
        model: the network.
        peers: those without ``same_network`` are left out.
        x: several images (N, 3, H, W); the largest value of a single image may be small.

    Raises:
        UserError: if one exceeds ``TOLERANCE``, or has outputs of other shapes.
    """
    exact = _in_memory_format(set_mixconv_impl(copy.deepcopy(model), 'split'), channels_last=False).double().eval()
    expected = network_outputs(exact, x.double())
    errors = {}
    for peer in peers:
        if not peer.same_network:
            continue
        actual = peer.run(x.to(memory_format=torch.channels_last) if peer.channels_last else x)
        if [tuple(out.shape) for out in actual] != [tuple(out.shape) for out in expected]:
            raise UserError(f'{peer.name} gives outputs of other shapes than the network it should compute')
        errors[peer.name] = max(
            ((out - wanted).abs().max() / wanted.abs().max()).item() for out, wanted in zip(actual, expected)
        )
        if not errors[peer.name] < TOLERANCE:
            raise UserError(f'{peer.name} is wrong by {errors[peer.name]:.1e} of the largest value')
    return errors

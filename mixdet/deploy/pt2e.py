"""Static int8 quantisation of a network as PyTorch's exported program (PT2E), for the formats made from one."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from mixdet.deploy.calibration import ranges_of

# A ReLU quantised together with its convolution leaves all 256 levels to the values within its bounds.
CONVOLUTIONS = ('aten.conv2d.default',)
CLIPPING = tuple(f'aten.{name}.default' for name in ('relu', 'relu_', 'relu6', 'relu6_', 'hardtanh', 'hardtanh_'))
SWISH = tuple(f'aten.{name}.default' for name in ('sigmoid', 'silu', 'silu_'))


def quantized(network: nn.Module, example: Tensor, images: Iterable[np.ndarray]) -> nn.Module:
    """``network`` with its convolutions in 8 bits, weights per channel, each together with a ReLU that follows it.

    Those whose input is one pixel (squeeze-and-excitation, the last level of a detector) stay in float, and so does
    everything else. One that makes one pixel of more is quantised, which :func:`mixdet.deploy.quantize.quantize` does
    not do: ExecuTorch 1.5.1 cannot lower a padding between 8 bits and a convolution in float. The ranges of the
    activations are those of :func:`mixdet.deploy.calibration.ranges_of`.

    Args:
        network: a network that ``torch.export`` takes.
        example: an input, (1, 3, H, W).
        images: normalised images (1, 3, H, W), float32 RGB, to calibrate activations on, gone through more than once.

    Raises:
        ImportError: without torchao.
    """
    from torchao.quantization.pt2e import MinMaxObserver
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    prepared: Any = prepare_pt2e(torch.export.export(network, (example,), strict=False).module(), _quantizer())
    observers = {name: module for name, module in prepared.named_modules() if type(module) is MinMaxObserver}
    swish = _before_swish(prepared, observers)

    def values(names: Sequence[str]) -> Iterator[Sequence[np.ndarray]]:
        seen: dict[str, np.ndarray] = {}
        hooks = [
            observers[name].register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0].numpy()}))
            for name in names
        ]
        try:
            for image in images:
                prepared(torch.from_numpy(image))
                yield [seen[name] for name in names]
        finally:
            for hook in hooks:
                hook.remove()

    with torch.no_grad():
        found = ranges_of(list(observers), swish, values)
        for name, (low, high) in found.items():
            observers[name].min_val, observers[name].max_val = torch.tensor(low), torch.tensor(high)
        return convert_pt2e(prepared)


def _before_swish(prepared: fx.GraphModule, observers: dict[str, nn.Module]) -> set[str]:
    """The observers whose tensor goes into a sigmoid."""
    names = {id(module): name for name, module in observers.items()}
    found = set()
    for node in prepared.graph.nodes:
        name = names.get(id(prepared.get_submodule(str(node.target)))) if node.op == 'call_module' else None
        if name and any(str(user.target) in SWISH for user in node.users):
            found.add(name)
    return found


def _quantizer() -> Any:
    """What tells PT2E which tensors are to be quantised, and how."""
    from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

    activation = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=2**-12),
    )
    weight = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=2**-12),
    )

    class ConvolutionQuantizer(Quantizer):
        """Convolutions with more than one pixel."""

        def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
            for node in model.graph.nodes:
                if str(node.target) not in CONVOLUTIONS or node.args[0].meta['val'].shape[2:] == (1, 1):
                    continue
                last = next((user for user in node.users if str(user.target) in CLIPPING), node)
                last = last if len(node.users) == 1 else node
                inputs = {node.args[0]: activation, node.args[1]: weight}
                output = activation if last is node else None
                node.meta['quantization_annotation'] = QuantizationAnnotation(inputs, output, _annotated=True)
                if last is not node:
                    last.meta['quantization_annotation'] = QuantizationAnnotation(
                        output_qspec=activation, _annotated=True
                    )
            return model

        def validate(self, model: fx.GraphModule) -> None:
            """Nothing can be wrong."""

    return ConvolutionQuantizer()

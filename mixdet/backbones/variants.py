"""The paper's kernel variants of the MobileNets by name: Table 1 and the ablations of figures 1, 4, 5 and 6."""

from typing import Any

from mixdet.backbones import mobilenet_v1, mobilenet_v2

SWEEP = (3, 5, 7, 9, 11, 13)
BASELINE = 'baseline3x3'
DEPTHWISE_LAYERS = {
    'mobilenetv1': len(mobilenet_v1.LAYERS),
    'mobilenetv2': sum(repeats for _, _, repeats, _ in mobilenet_v2.LAYERS),
}
NETWORKS = {'mobilenetv1': 'mixdet.MobileNetV1', 'mobilenetv2': 'mixdet.MobileNetV2'}
FIGURES = (1, 4, 5, 6)


def variants(network: str, figure: int) -> dict[str, dict[str, Any]]:
    """The backbone options of each variant in a figure of the paper, the baseline first.

    Figures 1 and 4: one kernel size from 3 to 13 in all layers, and mixed kernels up to that size. Figure 5: a 9x9
    kernel, or mixed 3, 5, 7 and 9, in a single layer. Figure 6: mixed kernels, plain, with the exponential split, and
    dilated.

    Args:
        network: 'mobilenetv1' or 'mobilenetv2'.
        figure: one of ``FIGURES``.

    Raises:
        ValueError: if ``network`` or ``figure`` is another.
    """
    if network not in NETWORKS or figure not in FIGURES:
        raise ValueError(f'network={network!r}, figure={figure!r}: must be in {tuple(NETWORKS)} and {FIGURES}')
    mixed = {f'mixconv{"".join(map(str, SWEEP[:n]))}': SWEEP[:n] for n in range(2, len(SWEEP) + 1)}
    found: dict[str, dict[str, Any]] = {BASELINE: dict(kernel_sizes=3)}
    if figure == 5:
        for layer in range(1, DEPTHWISE_LAYERS[network] + 1):
            found[f'layer{layer}-depthwise9x9'] = dict(layer_kernel_sizes={layer: 9})
            found[f'layer{layer}-mixconv3579'] = dict(layer_kernel_sizes={layer: (3, 5, 7, 9)})
        return found
    if figure == 6:
        for name, kernels in mixed.items():
            found[name] = dict(kernel_sizes=kernels)
            found[f'{name}-exp'] = dict(kernel_sizes=kernels, split='exponential')
            found[f'{name}-dilated'] = dict(kernel_sizes=kernels, dilated=True)
        return found
    found.update({f'depthwise{k}x{k}': dict(kernel_sizes=k) for k in SWEEP[1:]})
    found.update({name: dict(kernel_sizes=kernels) for name, kernels in mixed.items()})
    return found


def all_variants(network: str) -> dict[str, dict[str, Any]]:
    """The backbone options of every variant of ``network``, of all figures."""
    return {name: options for figure in FIGURES for name, options in variants(network, figure).items()}

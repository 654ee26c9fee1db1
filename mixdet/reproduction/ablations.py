"""What a change of kernels costs: parameters, multiply-adds and latency of each variant against the baseline."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from matplotlib.figure import Figure

from mixdet.backbones.variants import BASELINE, NETWORKS, SWEEP, variants
from mixdet.benchmark.complexity import count_complexity
from mixdet.benchmark.latency import measure_latency
from mixdet.engine.atomic import atomic_path
from mixdet.registry import MODELS
from mixdet.text import csv_cell, plot_text


class VariantCost(NamedTuple):
    """What a variant's backbone costs on one image: parameters, multiply-adds, milliseconds.

    ``delta_...`` are differences from the baseline. ``latency_ms`` and ``delta_ms`` are None if latency was not
    measured, ``ap`` if no result is known.
    """

    variant: str
    params: int
    macs: int
    delta_params: int
    delta_macs: int
    latency_ms: Optional[float] = None
    delta_ms: Optional[float] = None
    ap: Optional[float] = None


def variant_costs(
    network: str, figure: int, input_size: int = 320, rounds: int = 10, results: Optional[Mapping[str, float]] = None
) -> list[VariantCost]:
    """What every variant of ``network`` in a figure of the paper costs, the baseline first.

    Args:
        network, figure: see :func:`mixdet.backbones.variants.variants`.
        input_size: side of the square image, px.
        rounds: latency is the median of this many forward passes; 0 for none. The variants take turns, so that other
            load on the machine slows all of them alike.
        results: AP by variant.
    """
    models = {
        name: MODELS.build(dict(type=NETWORKS[network], **options)).eval()
        for name, options in variants(network, figure).items()
    }
    counts = {name: count_complexity(model, (input_size, input_size)) for name, model in models.items()}
    latency = measure_latency(models, (input_size, input_size), rounds=rounds)
    base = counts[BASELINE]
    return [
        VariantCost(
            name,
            count.params,
            count.macs,
            count.params - base.params,
            count.macs - base.macs,
            latency.get(name),
            latency[name] - latency[BASELINE] if latency else None,
            (results or {}).get(name),
        )
        for name, count in counts.items()
    ]


def write_costs_csv(costs: Sequence[VariantCost], path: Path) -> None:
    """Write a header and one line per variant."""
    with atomic_path(path) as partial, partial.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(VariantCost._fields)
        writer.writerows([csv_cell(value) for value in cost] for cost in costs)


def plot_costs(costs: Sequence[VariantCost], network: str, figure: int, path: Path) -> None:
    """Draw multiply-adds, latency and AP, where all are known, against kernel size or layer into a PNG."""
    panels = [('macs', 'multiply-adds, G', 1e-9), ('latency_ms', 'latency, ms', 1.0), ('ap', 'AP', 1.0)]
    panels = [panel for panel in panels if all(getattr(cost, panel[0]) is not None for cost in costs)]
    drawing = Figure(figsize=(5.5 * len(panels), 4), layout='constrained')
    base = costs[0]
    for axes, (field, label, scale) in zip(drawing.subplots(1, len(panels), squeeze=False)[0], panels):
        for title, points in _series(costs[1:], figure).items():
            if figure != 5:  # every curve over kernel sizes begins at the baseline
                points = {SWEEP[0]: base, **points}
            values = [scale * getattr(cost, field) for cost in points.values()]
            axes.plot(list(points), values, marker='o', markersize=4, label=plot_text(title))
        axes.axhline(scale * getattr(base, field), color='grey', linestyle=':', label=plot_text(BASELINE))
        axes.set_xlabel('layer replaced' if figure == 5 else 'largest kernel')
        axes.set_ylabel(plot_text(label))
        axes.grid(alpha=0.3)
        axes.legend()
    drawing.suptitle(plot_text(f"{network}, variants of the paper's figure {figure}"))
    with atomic_path(path) as partial:
        drawing.savefig(partial, dpi=120)


def _series(costs: Sequence[VariantCost], figure: int) -> dict[str, dict[int, VariantCost]]:
    """The curves by title; each maps positions on the x axis, kernel size or layer, to costs."""
    series: dict[str, dict[int, VariantCost]] = {}
    sizes = {f'mixconv{"".join(map(str, SWEEP[:n]))}': SWEEP[n - 1] for n in range(2, len(SWEEP) + 1)}
    for cost in costs:
        if figure == 5:
            layer, _, title = cost.variant.partition('-')
            position = int(layer.removeprefix('layer'))
        else:
            kernels, _, kind = cost.variant.partition('-')
            position = sizes[kernels] if kernels in sizes else int(kernels.rpartition('x')[2])
            title = ('mixconv' if kernels in sizes else 'depthwise') + (f' + {kind}' if kind else '')
        series.setdefault(title, {})[position] = cost
    return series

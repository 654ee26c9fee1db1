"""Counting what a network costs."""

from mixdet.analysis.complexity import Complexity, LayerCost, count_complexity, count_config

__all__ = ['Complexity', 'LayerCost', 'count_complexity', 'count_config']

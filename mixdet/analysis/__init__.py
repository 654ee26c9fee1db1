"""Counting what a network costs."""

from mixdet.analysis.complexity import Complexity, count_complexity

__all__ = ['Complexity', 'count_complexity']

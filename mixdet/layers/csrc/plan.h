// Which taps are summed, and how the channels are divided into SIMD vectors and blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include "vectors.h"

namespace mixdet {

constexpr int kTaps = 9;                      // weight gradients kept in registers at a time
constexpr int64_t kScratchBytes = 96 * 1024;  // target for the rows of a block, which should stay in the L2 cache
constexpr int64_t kBlockBytes = 256;          // maximum for one pixel of a block
constexpr int64_t kRowBytes = 4096;           // target for a row of a block: several should stay in the L1 cache

// One MixConv group. `top`, `left`: padding before the first row and column.
struct Group {
  int64_t first_channel, channels, kernel_h, kernel_w, dilation_h, dilation_w, top, left;
  int64_t taps() const { return kernel_h * kernel_w; }
  int64_t end() const { return first_channel + channels; }
};

// Where a tap reads, relative to (i, j) of the output times the input step.
struct Tap {
  int64_t dy, dx;
  bool operator<(const Tap& other) const { return std::tie(dy, dx) < std::tie(other.dy, other.dx); }
  bool operator==(const Tap& other) const { return dy == other.dy && dx == other.dx; }
};

// The smallest rectangle around a pixel that holds all that its taps read.
struct Window {
  int64_t min_dy, max_dy, min_dx, max_dx;
  int64_t height() const { return max_dy - min_dy + 1; }
  int64_t width() const { return max_dx - min_dx + 1; }
  void include(const Window& other) {
    min_dy = std::min(min_dy, other.min_dy);
    max_dy = std::max(max_dy, other.max_dy);
    min_dx = std::min(min_dx, other.min_dx);
    max_dx = std::max(max_dx, other.max_dx);
  }
};

// Output pixels (i * out_step + y, j * out_step + x), which all sum the same taps. `first`: place of the first of these
// taps among the taps of all phases.
struct Phase {
  int64_t y, x, first;
  std::vector<Tap> taps;  // sorted

  // The range of places of the taps with first_row <= dy < last_row.
  std::pair<int64_t, int64_t> places_between(int64_t first_row, int64_t last_row) const {
    const auto row = [](const Tap& tap, int64_t dy) { return tap.dy < dy; };
    const auto begin = std::lower_bound(taps.begin(), taps.end(), first_row, row);
    const auto end = std::lower_bound(begin, taps.end(), last_row, row);
    return {first + (begin - taps.begin()), first + (end - taps.begin())};
  }
};

// The taps of one kernel, or the union of the taps of several kernels whose channels share a vector.
struct Gather {
  int64_t first_group, taps = 0;
  std::vector<Phase> phases;
  std::vector<std::vector<int64_t>> places;  // [group][element of its kernel], among the taps of all phases
  Window window;
};

// The gather of the groups in `range` (the last included): of the output, or with `transposed` of the gradient of the
// input, whose pixel i is the sum of grad(o) * weight(k) over all o and k with o * stride + k * dilation - padding = i.
inline Gather make_gather(const std::vector<Group>& groups, std::pair<int64_t, int64_t> range, int64_t stride_h,
                          int64_t stride_w, bool transposed) {
  Gather gather{range.first};
  for (int64_t y = 0; y < (transposed ? stride_h : 1); ++y)
    for (int64_t x = 0; x < (transposed ? stride_w : 1); ++x) gather.phases.push_back({y, x, 0, {}});
  // (phase, offset) of a kernel's row or column
  const auto locate = [&](int64_t offset, int64_t stride) -> std::pair<int64_t, int64_t> {
    if (!transposed) return {0, offset};
    const int64_t phase = (offset % stride + stride) % stride;
    return {phase, (phase - offset) / stride};
  };
  std::vector<std::vector<std::pair<int64_t, Tap>>> elements;
  for (int64_t g = range.first; g <= range.second; ++g) {
    const Group& group = groups[g];
    elements.emplace_back();
    for (int64_t k = 0; k < group.taps(); ++k) {
      const auto [y, dy] = locate(k / group.kernel_w * group.dilation_h - group.top, stride_h);
      const auto [x, dx] = locate(k % group.kernel_w * group.dilation_w - group.left, stride_w);
      const Tap tap{dy, dx};
      const int64_t phase = y * (transposed ? stride_w : 1) + x;
      gather.phases[phase].taps.push_back(tap);
      elements.back().emplace_back(phase, tap);
    }
  }
  const Tap& some = elements[0][0].second;
  gather.window = {some.dy, some.dy, some.dx, some.dx};
  for (Phase& phase : gather.phases) {
    std::sort(phase.taps.begin(), phase.taps.end());
    phase.taps.erase(std::unique(phase.taps.begin(), phase.taps.end()), phase.taps.end());
    phase.first = gather.taps;
    gather.taps += phase.taps.size();
    for (const Tap& tap : phase.taps) gather.window.include({tap.dy, tap.dy, tap.dx, tap.dx});
  }
  for (const auto& kernel : elements) {
    gather.places.emplace_back();
    for (const auto& [phase, tap] : kernel) {
      const Phase& p = gather.phases[phase];
      gather.places.back().push_back(p.first + (std::lower_bound(p.taps.begin(), p.taps.end(), tap) - p.taps.begin()));
    }
  }
  return gather;
}

// The channels of one SIMD vector. `gather`: index of the gather with its taps; `start`: index of its first weight
// among the weights of all vectors, of which each tap has one.
struct Lanes {
  int64_t first_channel, channels, gather, start;
};

// Vectors [first, first + count), which are read and written together. In channels_last they are contiguous while
// pixels lie far apart, so the processor looks up each memory page once for all of them.
struct Block {
  int64_t first, count;
  Window window;
};

// How the work on all channels is divided.
struct Plan {
  std::vector<Gather> gathers;
  std::vector<Lanes> lanes;
  std::vector<Block> blocks;
  int64_t size = 0;  // vectors of weights

  // Where the weights of a vector start; for the vector after the last one, where all weights end.
  int64_t start(int64_t vector) const {
    return vector < static_cast<int64_t>(lanes.size()) ? lanes[vector].start : size;
  }
};

// `round`: the number of weights of each vector is rounded up to a multiple of this; `columns`: width of the input.
template <typename T>
Plan make_plan(const std::vector<Group>& groups, int64_t stride_h, int64_t stride_w, bool transposed, int64_t round,
               int64_t columns) {
  Plan plan;
  const int64_t channels = groups.back().end();
  std::pair<int64_t, int64_t> range{0, 0}, previous{-1, -1};
  for (int64_t c = 0; c < channels; c += Simd<T>::lanes) {
    const int64_t end = std::min<int64_t>(channels, c + Simd<T>::lanes);
    while (groups[range.first].end() <= c) ++range.first;
    while (groups[range.second].end() < end) ++range.second;
    if (range != previous) plan.gathers.push_back(make_gather(groups, range, stride_h, stride_w, transposed));
    previous = range;
    plan.lanes.push_back({c, end - c, static_cast<int64_t>(plan.gathers.size()) - 1, plan.size});
    plan.size += (plan.gathers.back().taps + round - 1) / round * round;
  }
  const int64_t vectors = plan.lanes.size();
  const int64_t width = std::clamp<int64_t>(kRowBytes / (columns * kVectorBytes), 1, kBlockBytes / kVectorBytes);
  for (int64_t first = 0; first < vectors; first += width) {
    Block block{first, std::min(width, vectors - first), plan.gathers[plan.lanes[first].gather].window};
    for (int64_t v = first; v < first + block.count; ++v)
      block.window.include(plan.gathers[plan.lanes[v].gather].window);
    plan.blocks.push_back(block);
  }
  return plan;
}

// How many rows (in steps of the output) to compute from one load of input rows; `row_bytes`: size of a row of a block.
inline int64_t rows_at_a_time(int64_t rows, int64_t row_bytes, int64_t in_step, int64_t extent) {
  const int64_t fit = kScratchBytes / row_bytes - extent;
  return std::max<int64_t>(1, std::min(rows, std::max(fit / in_step, 4 * extent / in_step)));
}

}  // namespace mixdet

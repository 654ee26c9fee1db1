// The arithmetic of mixed depthwise convolution on a CPU.
//
// Work is done on blocks of 64 bytes of channels (16 floats). A block of rows is copied, zero-padded, into a buffer
// whose elements are SIMD vectors across channels; memory layout, element type and padding matter only in that copy
// and in the one that writes results, so that the loops between them are plain multiply-adds without a condition. A
// block may hold channels of several groups: it has the taps of all their kernels, with weights of zero where one lacks
// a tap.
// Forward and input gradient are both "gather" convolutions: out(i * out_step + phase) sums in(i * in_step + offset)
// over taps; a stride in the input gradient only sorts the taps into phases.
#pragma once

#include <tuple>

#include "blocks.h"

namespace mixdet {

constexpr int64_t kScratchBytes = 96 * 1024;  // aimed at for a block of rows: it should stay in the L2 cache
constexpr int kTaps = 9;                      // weight gradients kept in registers at a time

// `Tile` output pixels of a row; they stay in registers while the taps go by.
template <typename T, int Tile, int Step>
void convolve_row(const Vec<T>* in, int64_t first, int64_t step, const int64_t* offsets, const Vec<T>* weights,
                  int64_t taps, Vec<T> bias, Vec<T>* out, int64_t width) {
  const int64_t distance = Step ? Step : step;
  for (int64_t x = 0; x < width; x += Tile) {
    const int64_t origin = first + x * distance;
    Vec<T> sums[Tile];
    for (int t = 0; t < Tile; ++t) sums[t] = bias;
    for (int64_t k = 0; k < taps; ++k) {
      const Vec<T>* pixels = in + (origin + offsets[k]);
      const Vec<T> weight = weights[k];
      for (int t = 0; t < Tile; ++t) sums[t] += pixels[t * distance] * weight;
    }
    for (int t = 0; t < Tile; ++t) out[x + t] = sums[t];
  }
}

template <typename T>
using RowFunction = void (*)(const Vec<T>*, int64_t, int64_t, const int64_t*, const Vec<T>*, int64_t, Vec<T>, Vec<T>*,
                             int64_t);

template <typename T, int Tile>
RowFunction<T> row_function(int64_t step) {
  return step == 1 ? convolve_row<T, Tile, 1> : step == 2 ? convolve_row<T, Tile, 2> : convolve_row<T, Tile, 0>;
}

constexpr int kLargestTile = 10;

// The tile that computes the fewest pixels beyond `width`; the larger of two equals.
template <typename T>
RowFunction<T> row_function(int64_t width, int64_t step) {
  int best = 10;
  for (int tile : {8, 5}) {
    if ((width + tile - 1) / tile * tile < (width + best - 1) / best * best) best = tile;
  }
  return best == 10 ? row_function<T, 10>(step) : best == 8 ? row_function<T, 8>(step) : row_function<T, 5>(step);
}

// Where a tap reads, relative to the output's (i, j) times the input step.
struct Tap {
  int64_t dy, dx;
  bool operator<(const Tap& other) const { return std::tie(dy, dx) < std::tie(other.dy, other.dx); }
  bool operator==(const Tap& other) const { return dy == other.dy && dx == other.dx; }
};

// Output pixels (i * out_step + y, j * out_step + x), which all sum the same taps.
struct Phase {
  int64_t y, x;
  std::vector<Tap> taps;  // in order

  // The taps with first <= dy < last, as a range.
  std::pair<int64_t, int64_t> taps_between(int64_t first, int64_t last) const {
    const auto row = [](const Tap& tap, int64_t dy) { return tap.dy < dy; };
    const auto begin = std::lower_bound(taps.begin(), taps.end(), first, row);
    const auto end = std::lower_bound(begin, taps.end(), last, row);
    return {begin - taps.begin(), end - taps.begin()};
  }
};

// The taps of one kernel, or of several that share a block of channels: each tap that one of them has.
struct Gather {
  int64_t first_group, taps = 0;
  std::vector<Phase> phases;
  std::vector<std::vector<int64_t>> places;  // [group][element of its kernel]: among the taps of all phases
  int64_t min_dy, max_dy, min_dx, max_dx;
};

// For the output, or `transposed` for the gradient of the input: its pixel i gets grad(o) * weight(k) from every
// o * stride + k * dilation - padding = i.
inline Gather make_gather(const std::vector<Group>& groups, const Range& range, int64_t stride_h, int64_t stride_w,
                          bool transposed) {
  Gather gather{range.first};
  for (int64_t y = 0; y < (transposed ? stride_h : 1); ++y)
    for (int64_t x = 0; x < (transposed ? stride_w : 1); ++x) gather.phases.push_back({y, x, {}});
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
  gather.min_dy = gather.max_dy = elements[0][0].second.dy;
  gather.min_dx = gather.max_dx = elements[0][0].second.dx;
  std::vector<int64_t> starts;
  for (Phase& phase : gather.phases) {
    std::sort(phase.taps.begin(), phase.taps.end());
    phase.taps.erase(std::unique(phase.taps.begin(), phase.taps.end()), phase.taps.end());
    starts.push_back(gather.taps);
    gather.taps += phase.taps.size();
    for (const Tap& tap : phase.taps) {
      gather.min_dy = std::min(gather.min_dy, tap.dy);
      gather.max_dy = std::max(gather.max_dy, tap.dy);
      gather.min_dx = std::min(gather.min_dx, tap.dx);
      gather.max_dx = std::max(gather.max_dx, tap.dx);
    }
  }
  for (const auto& kernel : elements) {
    gather.places.emplace_back();
    for (const auto& [phase, tap] : kernel) {
      const std::vector<Tap>& taps = gather.phases[phase].taps;
      gather.places.back().push_back(starts[phase] + (std::lower_bound(taps.begin(), taps.end(), tap) - taps.begin()));
    }
  }
  return gather;
}

struct Steps {
  int64_t in_h, in_w, out_h, out_w;
};

// Rows of `out` (in steps of steps.out_h) that are computed from one block of input rows.
template <typename T>
int64_t rows_at_a_time(int64_t rows, int64_t columns, int64_t in_step, int64_t extent) {
  const int64_t fit = kScratchBytes / (columns * kBlockBytes) - extent;
  return std::max<int64_t>(1, std::min(rows, std::max(fit / in_step, 4 * extent / in_step)));
}

// One block of channels, rows [first, last) (in steps of steps.out_h) of one image.
// `weights`: [vector][tap in the order of gather.phases]; `bias`: one block of values, or null.
template <typename T, typename S>
void gather_rows(const View<const S>& in, const View<S>& out, const Gather& gather, const Steps& steps,
                 const Block& block, const Vec<T>* weights, const Vec<T>* bias, Activation activation, int64_t n,
                 int64_t first, int64_t last) {
  constexpr int lanes = Simd<T>::lanes;
  const int64_t out_columns = (out.width + steps.out_w - 1) / steps.out_w;
  const int64_t columns = (out_columns - 1) * steps.in_w + gather.max_dx - gather.min_dx + 1;
  // rows outside the image are left out of the sums; columns outside are zeros in the buffer
  const int64_t top = std::clamp<int64_t>(first * steps.in_h + gather.min_dy, 0, in.height);
  const int64_t bottom = std::clamp<int64_t>((last - 1) * steps.in_h + gather.max_dy + 1, top, in.height);
  const int64_t plane = (bottom - top) * columns;
  const int64_t tail = kLargestTile * steps.in_w;  // tiles may reach beyond the last pixel
  Vec<T>* buffer = scratch<T>(plane * kVectors + tail, 0);
  Vec<T>* result = scratch<T>(out_columns + kLargestTile, 1);
  load<T, S>(in, n, block, top, bottom - top, gather.min_dx, columns, buffer);
  std::fill(buffer + plane * kVectors, buffer + plane * kVectors + tail, Vec<T>{});

  std::vector<int64_t> offsets;
  const RowFunction<T> convolve = row_function<T>(out_columns, steps.in_w);
  Prefetch<const S> next(in, n, block.first_channel + block.channels, top, bottom, last - first);
  const bool far = out.far();
  int64_t done = 0;
  for (const Phase& phase : gather.phases) {
    offsets.clear();
    for (const Tap& tap : phase.taps) offsets.push_back(tap.dy * columns + tap.dx - gather.min_dx);
    const int64_t width = (out.width - phase.x + steps.out_w - 1) / steps.out_w;
    for (int64_t i = first; i < last; ++i) {
      const int64_t y = i * steps.out_h + phase.y;
      if (y >= out.height) break;
      next.step();
      const int64_t row = i * steps.in_h - top;
      const auto [begin, end] = phase.taps_between(-row, bottom - top - row);
      for (int v = 0; v < kVectors && v * lanes < block.channels; ++v) {
        const int count = static_cast<int>(std::min<int64_t>(lanes, block.channels - v * lanes));
        S* target = out.data + n * out.batch_step + (block.first_channel + v * lanes) * out.channel_step +
                    y * out.row_step + phase.x * out.pixel_step;
        // the lines that the results go to are fetched while they are computed
        for (int64_t x = 0; far && x < width; ++x) __builtin_prefetch(target + x * steps.out_w * out.pixel_step, 1);
        convolve(buffer + v * plane, row * columns, steps.in_w, offsets.data() + begin,
                 weights + v * gather.taps + done + begin, end - begin, bias ? bias[v] : Vec<T>{}, result, width);
        activate<T>(result, width, activation);
        store<T, S>(result, width, count, target, out.channel_step, steps.out_w * out.pixel_step);
      }
    }
    done += phase.taps.size();
  }
}

// sums[k] += x[pixel + offsets[k]] * grad[pixel] over a rectangle of pixels.
template <typename T, int Step>
void correlate(const Vec<T>* x, int64_t row_step, int64_t pixel_step, const int64_t* offsets, const Vec<T>* grad,
               int64_t rows, int64_t columns, Vec<T>* sums) {
  const int64_t step = Step ? Step : pixel_step;
  Vec<T> local[kTaps];
  for (int k = 0; k < kTaps; ++k) local[k] = Vec<T>{};
  const Vec<T>* taps[kTaps];
  for (int64_t r = 0; r < rows; ++r) {
    for (int k = 0; k < kTaps; ++k) taps[k] = x + r * row_step + offsets[k];
    for (int64_t c = 0; c < columns; ++c) {
      const Vec<T> g = *grad++;
      for (int k = 0; k < kTaps; ++k) local[k] += taps[k][c * step] * g;
    }
  }
  // sums of sums: rounding errors grow with the number of terms
  for (int k = 0; k < kTaps; ++k) sums[k] += local[k];
}

// Weight gradient of one block of channels over images [first, last); adds to sums[vector][tap, rounded up to kTaps].
template <typename T, typename S>
void weight_gradient(const View<const S>& x, const View<const S>& grad, const Gather& gather, const Block& block,
                     int64_t stride_h, int64_t stride_w, int64_t first, int64_t last, Vec<T>* sums) {
  constexpr int lanes = Simd<T>::lanes;
  const int64_t extent_h = gather.max_dy - gather.min_dy + 1;
  const int64_t columns = (grad.width - 1) * stride_w + gather.max_dx - gather.min_dx + 1;
  const int64_t taps = (gather.taps + kTaps - 1) / kTaps * kTaps;
  const int64_t strip = rows_at_a_time<T>(grad.height, columns + grad.width, stride_h, extent_h);
  // enough pixels to make up for fetching the sums, few enough to stay in the L1 cache
  const int64_t step = std::max<int64_t>(1, 64 / grad.width);
  std::vector<int64_t> offsets(taps, 0);
  for (int64_t k = 0; k < gather.taps; ++k) {
    const Tap& tap = gather.phases[0].taps[k];
    offsets[k] = (tap.dy - gather.min_dy) * columns + tap.dx - gather.min_dx;
  }
  const auto function = stride_w == 1 ? correlate<T, 1> : stride_w == 2 ? correlate<T, 2> : correlate<T, 0>;
  for (int64_t n = first; n < last; ++n) {
    for (int64_t y = 0; y < grad.height; y += strip) {
      const int64_t out_rows = std::min(strip, grad.height - y);
      const int64_t rows = (out_rows - 1) * stride_h + extent_h;
      Vec<T>* pixels = scratch<T>(rows * columns * kVectors, 0);
      Vec<T>* gradients = scratch<T>(out_rows * grad.width * kVectors, 1);
      load<T, S>(x, n, block, y * stride_h + gather.min_dy, rows, gather.min_dx, columns, pixels);
      load<T, S>(grad, n, block, y, out_rows, 0, grad.width, gradients);
      // the next block of rows, which another image may have
      const int64_t next_n = y + strip < grad.height ? n : n + 1, next_y = next_n == n ? y + strip : 0;
      const int64_t end = next_n < last ? std::min(strip, grad.height - next_y) : 0;
      const int64_t parts = (out_rows + step - 1) / step;
      Prefetch<const S> next_x(x, next_n, block.first_channel, next_y * stride_h,
                               std::min(x.height, (next_y + end) * stride_h), parts);
      Prefetch<const S> next_grad(grad, next_n, block.first_channel, next_y, next_y + end, parts);
      for (int v = 0; v < kVectors && v * lanes < block.channels; ++v) {
        for (int64_t r = 0; r < out_rows; r += step) {
          next_x.step();
          next_grad.step();
          const Vec<T>* origin = pixels + v * rows * columns + r * stride_h * columns;
          for (int64_t k = 0; k < taps; k += kTaps) {
            function(origin, stride_h * columns, stride_w, offsets.data() + k,
                     gradients + (v * out_rows + r) * grad.width, std::min(step, out_rows - r), grad.width,
                     sums + v * taps + k);
          }
        }
      }
    }
  }
}

}  // namespace mixdet

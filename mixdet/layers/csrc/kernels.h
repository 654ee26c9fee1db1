// The arithmetic of mixed depthwise convolution on a CPU.
//
// The unit of work is a block of neighbouring channels. Its rows are copied, with zero padding, into a buffer of SIMD
// vectors across channels. Memory layout, element type and padding matter only in that copy and in the one that writes
// the results, so the loops between them are plain multiply-adds without conditions. A vector can hold channels of
// several groups: it then has the taps of all their kernels, with zero weights for taps that a kernel lacks. Forward
// and input gradient are both "gather" convolutions: out(i * out_step + phase) is a sum of in(i * in_step + offset)
// over taps; a stride of the input gradient only sorts the taps into phases.
#pragma once

#include "plan.h"

namespace mixdet {

// Computes a row, `Tile` output pixels at a time, which stay in registers during the loop over taps.
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

// The function whose tiles compute the fewest pixels beyond `width`; of several, the one with the largest tile.
template <typename T>
RowFunction<T> row_function(int64_t width, int64_t step) {
  int best = 10;
  for (int tile : {8, 5}) {
    if ((width + tile - 1) / tile * tile < (width + best - 1) / best * best) best = tile;
  }
  return best == 10 ? row_function<T, 10>(step) : best == 8 ? row_function<T, 8>(step) : row_function<T, 5>(step);
}

struct Steps {
  int64_t in_h, in_w, out_h, out_w;
};

// Where the taps of a block's vectors read, relative to the start of a row of the buffer, which has `columns` columns:
// one list for each gather, from that of the first vector to that of the last.
inline std::vector<std::vector<int64_t>> offsets_of(const Plan& plan, const Block& block, int64_t top,
                                                    int64_t columns) {
  std::vector<std::vector<int64_t>> all;
  for (int64_t g = plan.lanes[block.first].gather; g <= plan.lanes[block.first + block.count - 1].gather; ++g) {
    all.emplace_back();
    for (const Phase& phase : plan.gathers[g].phases)
      for (const Tap& tap : phase.taps) all.back().push_back((tap.dy - top) * columns + tap.dx - block.window.min_dx);
  }
  return all;
}

// Computes rows [first, last) (in steps of steps.out_h) of image n, for a block of channels. `bias` is that of all
// channels, or null.
template <typename T, typename S>
void gather_rows(const View<const S>& in, const View<S>& out, const Plan& plan, const Block& block, const Steps& steps,
                 const Vec<T>* weights, const T* bias, Activation activation, int64_t n, int64_t first, int64_t last) {
  const Lanes* lanes = plan.lanes.data() + block.first;
  const Window& window = block.window;
  const int64_t out_columns = (out.width + steps.out_w - 1) / steps.out_w;
  const int64_t columns = (out_columns - 1) * steps.in_w + window.width();
  // rows outside the image are left out of the sums; columns outside it are zeros in the buffer
  const int64_t top = std::clamp<int64_t>(first * steps.in_h + window.min_dy, 0, in.height);
  const int64_t bottom = std::clamp<int64_t>((last - 1) * steps.in_h + window.max_dy + 1, top, in.height);
  const int64_t plane = (bottom - top) * columns;
  const int64_t tail = kLargestTile * steps.in_w;  // tiles may reach beyond the last pixel
  Vec<T>* buffer = scratch<T>(plane * block.count + tail, 0);
  Vec<T>* result = scratch<T>(out_columns + kLargestTile, 1);
  const Lanes& end = lanes[block.count - 1];
  const int64_t channels = end.first_channel + end.channels - lanes->first_channel;
  load<T, S>(in, n, lanes->first_channel, channels, top, bottom - top, window.min_dx, columns, buffer);
  std::fill(buffer + plane * block.count, buffer + plane * block.count + tail, Vec<T>{});

  const auto offsets = offsets_of(plan, block, 0, columns);
  const RowFunction<T> convolve = row_function<T>(out_columns, steps.in_w);
  Prefetch<const S> next(in, n, end.first_channel + end.channels, channels, top, bottom, last - first);
  const bool far = out.far();
  for (size_t p = 0; p < plan.gathers[0].phases.size(); ++p) {
    const Phase& phase = plan.gathers[0].phases[p];  // gathers differ in taps, not in x and y
    const int64_t width = (out.width - phase.x + steps.out_w - 1) / steps.out_w;
    for (int64_t i = first; i < last; ++i) {
      const int64_t y = i * steps.out_h + phase.y;
      if (y >= out.height) break;
      next.step();
      const int64_t row = i * steps.in_h - top;
      std::pair<int64_t, int64_t> places;
      for (int64_t v = 0; v < block.count; ++v) {
        const int64_t gather = lanes[v].gather;
        if (v == 0 || gather != lanes[v - 1].gather)
          places = plan.gathers[gather].phases[p].places_between(-row, bottom - top - row);
        S* target = out.data + n * out.batch_step + lanes[v].first_channel * out.channel_step + y * out.row_step +
                    phase.x * out.pixel_step;
        // fetch the cache lines of the results while these are computed
        for (int64_t x = 0; far && x < width; ++x) __builtin_prefetch(target + x * steps.out_w * out.pixel_step, 1);
        Vec<T> added{};
        if (bias) std::memcpy(&added, bias + lanes[v].first_channel, lanes[v].channels * sizeof(T));
        convolve(buffer + v * plane, row * columns, steps.in_w, offsets[gather - lanes->gather].data() + places.first,
                 weights + lanes[v].start + places.first, places.second - places.first, added, result, width);
        activate<T>(result, width, activation);
        store<T, S>(result, width, static_cast<int>(lanes[v].channels), target, out.channel_step,
                    steps.out_w * out.pixel_step);
      }
    }
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
  // partial sums are added up separately, because rounding errors grow with the number of terms
  for (int k = 0; k < kTaps; ++k) sums[k] += local[k];
}

// Adds the weight gradient of a block of channels over images [first, last) to sums[start of a vector + tap].
template <typename T, typename S>
void weight_gradient(const View<const S>& x, const View<const S>& grad, const Plan& plan, const Block& block,
                     int64_t stride_h, int64_t stride_w, int64_t first, int64_t last, Vec<T>* sums) {
  const Lanes* lanes = plan.lanes.data() + block.first;
  const Lanes& end = lanes[block.count - 1];
  const int64_t channels = end.first_channel + end.channels - lanes->first_channel;
  const Window& window = block.window;
  const int64_t columns = (grad.width - 1) * stride_w + window.width();
  const int64_t strip =
      rows_at_a_time(grad.height, (columns + grad.width) * block.count * kVectorBytes, stride_h, window.height());
  // enough rows to make up for fetching the sums, few enough for the L1 cache
  const int64_t step = std::max<int64_t>(1, 64 / grad.width);
  auto offsets = offsets_of(plan, block, window.min_dy, columns);
  for (auto& of_gather : offsets) of_gather.resize((of_gather.size() + kTaps - 1) / kTaps * kTaps);
  const auto function = stride_w == 1 ? correlate<T, 1> : stride_w == 2 ? correlate<T, 2> : correlate<T, 0>;
  for (int64_t n = first; n < last; ++n) {
    for (int64_t y = 0; y < grad.height; y += strip) {
      const int64_t out_rows = std::min(strip, grad.height - y);
      const int64_t rows = (out_rows - 1) * stride_h + window.height();
      Vec<T>* pixels = scratch<T>(rows * columns * block.count, 0);
      Vec<T>* gradients = scratch<T>(out_rows * grad.width * block.count, 1);
      load<T, S>(x, n, lanes->first_channel, channels, y * stride_h + window.min_dy, rows, window.min_dx, columns,
                 pixels);
      load<T, S>(grad, n, lanes->first_channel, channels, y, out_rows, 0, grad.width, gradients);
      // the rows that are loaded next, perhaps those of the next image
      const int64_t next_n = y + strip < grad.height ? n : n + 1, next_y = next_n == n ? y + strip : 0;
      const int64_t next_end = next_n < last ? next_y + std::min(strip, grad.height - next_y) : next_y;
      const int64_t steps = (out_rows + step - 1) / step;
      Prefetch<const S> next_x(x, next_n, lanes->first_channel, channels, next_y * stride_h,
                               std::min(x.height, next_end * stride_h), steps);
      Prefetch<const S> next_grad(grad, next_n, lanes->first_channel, channels, next_y, next_end, steps);
      for (int64_t v = 0; v < block.count; ++v) {
        const auto& taps = offsets[lanes[v].gather - lanes->gather];
        for (int64_t r = 0; r < out_rows; r += step) {
          next_x.step();
          next_grad.step();
          const Vec<T>* origin = pixels + v * rows * columns + r * stride_h * columns;
          for (size_t k = 0; k < taps.size(); k += kTaps) {
            function(origin, stride_h * columns, stride_w, taps.data() + k, gradients + (v * out_rows + r) * grad.width,
                     std::min(step, out_rows - r), grad.width, sums + lanes[v].start + k);
          }
        }
      }
    }
  }
}

}  // namespace mixdet

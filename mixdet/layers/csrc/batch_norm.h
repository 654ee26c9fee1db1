// Batch-norm in training followed by a clamp (ReLU, ReLU6, or none), and its gradients, in channels_last.
//
// PyTorch goes over the images six times in the forward pass (mean, variance, normalisation, clamp) and eight times in
// the backward pass. These go over them three and five times: sums of values and of squares together, and the clamp and
// its mask in passing. Rows are worked on in chunks, whose sums are added in order, so that the number of threads does
// not change a bit of the result.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <tuple>
#include <vector>

#include "parallel.h"

namespace mixdet {

using at::Tensor;

constexpr int64_t kChunk = 2048;  // pixels whose sums are added up by one thread
constexpr int64_t kBlock = 64;    // pixels that are added up in float before the sums are added in double

// A batch as rows of channels.
struct Rows {
  int64_t count, channels;
  explicit Rows(const Tensor& x) : count(x.size(0) * x.size(2) * x.size(3)), channels(x.size(1)) {}
  int64_t chunks() const { return (count + kChunk - 1) / kChunk; }
  // calls function(chunk, first row, last row) for all chunks
  template <typename Function>
  void each(const Function& function) const {
    parallel_for(chunks(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) function(i, i * kChunk, std::min(count, (i + 1) * kChunk));
    });
  }
};

inline void check_batch_norm(const Tensor& x, std::initializer_list<Tensor> images,
                             std::initializer_list<Tensor> rest) {
  TORCH_CHECK_VALUE(x.dim() == 4, "batch_norm_clamp: input must have the shape (N, C, H, W)");
  for (const Tensor& image : images) {
    TORCH_CHECK_VALUE(image.sizes() == x.sizes() && image.is_contiguous(at::MemoryFormat::ChannelsLast) &&
                          image.scalar_type() == at::kFloat,
                      "batch_norm_clamp: images must be float32, of one shape, in channels_last");
  }
  for (const Tensor& each : rest) {
    TORCH_CHECK_VALUE(
        each.dim() == 1 && each.size(0) == x.size(1) && each.is_contiguous() && each.scalar_type() == at::kFloat,
        "batch_norm_clamp: parameters must be float32, one number for each channel");
  }
}

// Adds up two quantities of each channel over all rows: `add(row, first, second)` adds a row to two arrays.
template <typename Add>
std::vector<double> sums(const Rows& rows, const Add& add) {
  const int64_t c = rows.channels;
  std::vector<double> parts(rows.chunks() * 2 * c, 0.0);
  rows.each([&](int64_t chunk, int64_t begin, int64_t end) {
    std::vector<float> block(2 * c);
    double* part = parts.data() + chunk * 2 * c;
    for (int64_t first = begin; first < end; first += kBlock) {
      std::fill(block.begin(), block.end(), 0.0f);
      for (int64_t row = first; row < std::min(end, first + kBlock); ++row) add(row, block.data(), block.data() + c);
      for (int64_t i = 0; i < 2 * c; ++i) part[i] += block[i];
    }
  });
  std::vector<double> total(2 * c, 0.0);
  for (int64_t chunk = 0; chunk < rows.chunks(); ++chunk)
    for (int64_t i = 0; i < 2 * c; ++i) total[i] += parts[chunk * 2 * c + i];
  return total;
}

// Rows of the statistics (4, C): the result is clamp(input * scale + shift).
enum Statistic { kMean, kVariance, kScale, kShift };

// The result, and mean, biased variance, scale and shift of each channel.
inline std::tuple<Tensor, Tensor> batch_norm_clamp(const Tensor& input, const Tensor& weight, const Tensor& bias,
                                                   double eps, double low, double high) {
  check_batch_norm(input, {input}, {weight, bias});
  const Rows rows(input);
  const int64_t c = rows.channels;
  Tensor out = at::empty_like(input), statistics = at::empty({4, c}, weight.options());
  float* statistic = statistics.data_ptr<float>();
  const float* x = input.data_ptr<float>();

  // squares of the differences from a value near the mean, as those of the values would lose the variance to rounding
  std::vector<float> near(c, 0.0f);
  const int64_t samples = std::min<int64_t>(rows.count, 32);
  for (int64_t i = 0; i < samples; ++i)
    for (int64_t k = 0; k < c; ++k) near[k] += x[i * (rows.count / samples) * c + k] / samples;
  const float* centre = near.data();
  const std::vector<double> total = sums(rows, [=](int64_t row, float* __restrict sum, float* __restrict square) {
    const float* __restrict values = x + row * c;
    for (int64_t k = 0; k < c; ++k) {
      const float value = values[k] - centre[k];
      sum[k] += value;
      square[k] += value * value;
    }
  });

  for (int64_t k = 0; k < c; ++k) {
    const double offset = total[k] / rows.count;
    const double variance = std::max(total[c + k] / rows.count - offset * offset, 0.0);
    const double scale = weight.data_ptr<float>()[k] / std::sqrt(variance + eps);
    statistic[kMean * c + k] = static_cast<float>(near[k] + offset);
    statistic[kVariance * c + k] = static_cast<float>(variance);
    statistic[kScale * c + k] = static_cast<float>(scale);
    statistic[kShift * c + k] = static_cast<float>(bias.data_ptr<float>()[k] - (near[k] + offset) * scale);
  }
  float* result = out.data_ptr<float>();
  const float *scale = statistic + kScale * c, *shift = statistic + kShift * c;
  const float minimum = static_cast<float>(low), maximum = static_cast<float>(high);
  rows.each([=](int64_t, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* __restrict values = x + row * c;
      float* __restrict results = result + row * c;
      for (int64_t k = 0; k < c; ++k) {
        const float value = values[k] * scale[k] + shift[k];
        results[k] = value < minimum ? minimum : value > maximum ? maximum : value;  // NaN stays NaN
      }
    }
  });
  return {out, statistics};
}

// The gradient that reaches the batch-norm from that of the clamp. Without &&, which would keep loops from being
// vectorised.
inline float passed(float grad, float before, float low, float high) {
  return static_cast<int>(before > low) & static_cast<int>(before < high) ? grad : 0.0f;
}

// Gradients of the input, weight and bias.
inline std::tuple<Tensor, Tensor, Tensor> batch_norm_clamp_backward(const Tensor& grad, const Tensor& input,
                                                                    const Tensor& weight, const Tensor& statistics,
                                                                    double eps, double low, double high) {
  check_batch_norm(input, {grad, input}, {weight, statistics[0]});
  TORCH_CHECK_VALUE(statistics.size(0) == 4 && statistics.is_contiguous(), "batch_norm_clamp: not its statistics");
  const Rows rows(input);
  const int64_t c = rows.channels;
  Tensor input_grad = at::empty_like(input), weight_grad = at::empty_like(weight), bias_grad = at::empty_like(weight);
  const float *g = grad.data_ptr<float>(), *x = input.data_ptr<float>(), *statistic = statistics.data_ptr<float>();
  const float *mean = statistic, *scale = statistic + kScale * c, *shift = statistic + kShift * c;
  const float minimum = static_cast<float>(low), maximum = static_cast<float>(high);
  const std::vector<double> total = sums(rows, [=](int64_t row, float* __restrict sum, float* __restrict product) {
    const float* __restrict grads = g + row * c, * __restrict values = x + row * c;
    for (int64_t k = 0; k < c; ++k) {
      const float each = passed(grads[k], values[k] * scale[k] + shift[k], minimum, maximum);
      sum[k] += each;
      product[k] += each * (values[k] - mean[k]);
    }
  });

  std::vector<float> slope(c), constant(c);
  for (int64_t k = 0; k < c; ++k) {
    const double inverse = 1.0 / std::sqrt(statistic[kVariance * c + k] + eps);
    bias_grad.data_ptr<float>()[k] = static_cast<float>(total[k]);
    weight_grad.data_ptr<float>()[k] = static_cast<float>(total[c + k] * inverse);
    const double factor = weight.data_ptr<float>()[k] * inverse;
    slope[k] = static_cast<float>(-factor * total[c + k] * inverse * inverse / rows.count);
    constant[k] = static_cast<float>(-factor * total[k] / rows.count);
  }
  float* result = input_grad.data_ptr<float>();
  const float *a = slope.data(), *b = constant.data();
  rows.each([=](int64_t, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* __restrict grads = g + row * c, * __restrict values = x + row * c;
      float* __restrict results = result + row * c;
      for (int64_t k = 0; k < c; ++k) {
        const float each = passed(grads[k], values[k] * scale[k] + shift[k], minimum, maximum);
        results[k] = each * scale[k] + (values[k] - mean[k]) * a[k] + b[k];
      }
    }
  });
  return {input_grad, weight_grad, bias_grad};
}

}  // namespace mixdet

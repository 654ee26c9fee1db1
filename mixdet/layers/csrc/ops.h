// The operator and its two gradients for CPU tensors: checks, distribution over threads, types.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/ivalue.h>

#include "kernels.h"
#include "parallel.h"

namespace mixdet {

using at::IntArrayRef;
using at::Tensor;
using at::TensorList;
// std::optional, or in older versions of PyTorch its own
using OptionalTensor = decltype(std::declval<const c10::IValue&>().toOptional<Tensor>());

// Stride (2 numbers); padding and dilation (2 for each group); `same`: TensorFlow's SAME padding instead of `padding`.
struct Options {
  std::vector<int64_t> stride, padding, dilation;
  bool same;
};

inline std::vector<Group> make_groups(IntArrayRef shapes, const Options& o, int64_t height, int64_t width) {
  const int64_t count = static_cast<int64_t>(shapes.size()) / 3;
  TORCH_CHECK_VALUE(o.stride.size() == 2 && o.stride[0] > 0 && o.stride[1] > 0,
                    "mixconv2d: stride must be 2 positive numbers");
  TORCH_CHECK_VALUE(
      static_cast<int64_t>(o.padding.size()) == 2 * count && static_cast<int64_t>(o.dilation.size()) == 2 * count,
      "mixconv2d: padding and dilation must have 2 numbers for each of ", count, " groups");
  std::vector<Group> groups;
  int64_t channels = 0;
  for (int64_t i = 0; i < count; ++i) {
    Group g{channels,          shapes[3 * i],         shapes[3 * i + 1], shapes[3 * i + 2],
            o.dilation[2 * i], o.dilation[2 * i + 1], o.padding[2 * i],  o.padding[2 * i + 1]};
    TORCH_CHECK_VALUE(g.dilation_h > 0 && g.dilation_w > 0, "mixconv2d: dilation must be positive");
    if (o.same) {
      const auto before = [](int64_t size, int64_t stride, int64_t extent) {
        return std::max<int64_t>(((size + stride - 1) / stride - 1) * stride + extent - size, 0) / 2;
      };
      g.top = before(height, o.stride[0], (g.kernel_h - 1) * g.dilation_h + 1);
      g.left = before(width, o.stride[1], (g.kernel_w - 1) * g.dilation_w + 1);
    }
    groups.push_back(g);
    channels += g.channels;
  }
  return groups;
}

inline int64_t output_size(int64_t size, int64_t stride, int64_t padding, int64_t extent, bool same) {
  if (same) return (size + stride - 1) / stride;
  return size + 2 * padding < extent ? 0 : (size + 2 * padding - extent) / stride + 1;
}

// (height, width) of the output, in which all groups must agree.
inline std::pair<int64_t, int64_t> output_size(const std::vector<Group>& groups, const Options& o, int64_t height,
                                               int64_t width) {
  std::pair<int64_t, int64_t> result{-1, -1};
  for (const Group& g : groups) {
    const std::pair<int64_t, int64_t> size{
        output_size(height, o.stride[0], g.top, (g.kernel_h - 1) * g.dilation_h + 1, o.same),
        output_size(width, o.stride[1], g.left, (g.kernel_w - 1) * g.dilation_w + 1, o.same)};
    TORCH_CHECK_VALUE(size.first > 0 && size.second > 0, "mixconv2d: an input of ", height, " x ", width,
                      " pixels is smaller than a kernel");
    TORCH_CHECK_VALUE(result.first < 0 || result == size, "mixconv2d: groups give outputs of different sizes");
    result = size;
  }
  return result;
}

inline std::vector<int64_t> shapes_of(TensorList weights) {
  std::vector<int64_t> shapes;
  for (const Tensor& weight : weights) {
    TORCH_CHECK_VALUE(weight.dim() == 4 && weight.size(1) == 1,
                      "mixconv2d: weights must have the shape (channels, 1, kernel height, kernel width)");
    shapes.insert(shapes.end(), {weight.size(0), weight.size(2), weight.size(3)});
  }
  return shapes;
}

inline void check(const Tensor& x, IntArrayRef shapes, const char* name) {
  TORCH_CHECK_VALUE(x.dim() == 4, "mixconv2d: ", name, " must have the shape (N, C, H, W)");
  int64_t channels = 0;
  for (size_t i = 0; i < shapes.size(); i += 3) channels += shapes[i];
  TORCH_CHECK_VALUE(x.size(1) == channels, "mixconv2d: ", name, " has ", x.size(1), " channels, the weights ",
                    channels);
}

inline void check_types(const Tensor& x, TensorList others) {
  for (const Tensor& other : others) {
    TORCH_CHECK_TYPE(other.scalar_type() == x.scalar_type() && other.device() == x.device(), "mixconv2d: tensors of ",
                     x.scalar_type(), " on ", x.device(), " and ", other.scalar_type(), " on ", other.device());
  }
}

inline at::MemoryFormat layout(const Tensor& x) {
  return x.is_contiguous(at::MemoryFormat::ChannelsLast) && !x.is_contiguous() ? at::MemoryFormat::ChannelsLast
                                                                               : at::MemoryFormat::Contiguous;
}

template <typename S>
View<S> view(const Tensor& x) {
  S* data;
  if constexpr (std::is_const_v<S>) {
    data = x.const_data_ptr<std::remove_const_t<S>>();
  } else {
    data = x.mutable_data_ptr<S>();
  }
  return {data, x.size(0), x.size(1), x.size(2), x.size(3), x.stride(0), x.stride(1), x.stride(2), x.stride(3)};
}

// Half and bfloat16 are summed in float.
template <typename S>
using Accumulator = std::conditional_t<std::is_same_v<S, double>, double, float>;

#define MIXDET_DISPATCH(TYPE, ...) \
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, TYPE, "mixconv2d", __VA_ARGS__)

// Calls function(group, first lane, last lane + 1, places of the kernel's taps) for each group in a vector.
template <typename Function>
void for_groups(const std::vector<Group>& groups, const Lanes& lanes, const Gather& gather, Function function) {
  for (size_t g = 0; g < gather.places.size(); ++g) {
    const int64_t index = gather.first_group + g;
    const int64_t first = std::max<int64_t>(0, groups[index].first_channel - lanes.first_channel);
    const int64_t last = std::min(lanes.channels, groups[index].end() - lanes.first_channel);
    if (first < last) function(index, first, last, gather.places[g]);
  }
}

// Writes the weights of a vector of channels, [tap]: zeros for taps that a channel's kernel lacks and beyond the last
// channel.
template <typename T, typename S>
void pack(const std::vector<Tensor>& weights, const std::vector<Group>& groups, const Lanes& lanes,
          const Gather& gather, Vec<T>* out) {
  constexpr int size = Simd<T>::lanes;
  T* values = reinterpret_cast<T*>(out);
  if (lanes.channels < size || gather.places.size() > 1) std::fill(values, values + gather.taps * size, T(0));
  for_groups(groups, lanes, gather, [&](int64_t g, int64_t first, int64_t last, const std::vector<int64_t>& places) {
    const int64_t taps = groups[g].taps();
    const S* source = weights[g].const_data_ptr<S>() + (lanes.first_channel - groups[g].first_channel) * taps;
    const auto copy = [&](int64_t k, int64_t i) {
      values[places[k] * size + i] = static_cast<T>(source[i * taps + k]);
    };
    const bool full = last - first == size;  // a loop of constant length is faster
    for (int64_t k = 0; k < taps; ++k) {
      if (full) {
        for (int i = 0; i < size; ++i) copy(k, i);
      } else {
        for (int64_t i = first; i < last; ++i) copy(k, i);
      }
    }
  });
}

inline Activation activation_of(c10::string_view name) {
  if (name == "none") return Activation::none;
  if (name == "relu") return Activation::relu;
  if (name == "relu6") return Activation::relu6;
  TORCH_CHECK_VALUE(false, "mixconv2d: activation '", name, "' must be none, relu or relu6");
}

// How many tasks are worth a thread (about 10^5 multiply-adds) if `tasks` of them have `work` multiply-adds.
inline int64_t grain(int64_t tasks, int64_t work) {
  return std::max<int64_t>(1, 100000 * tasks / std::max<int64_t>(1, work));
}

// Multiply-adds for a result with `elements` elements in each channel.
inline int64_t work_of(const std::vector<Group>& groups, int64_t elements) {
  int64_t work = 0;
  for (const Group& group : groups) work += group.channels * group.taps() * elements;
  return work;
}

inline void gather(const Tensor& in, const Tensor& out, TensorList weights, const OptionalTensor& bias,
                   const std::vector<Group>& groups, const Options& o, bool transposed, Activation activation) {
  if (!out.numel()) return;
  const int64_t stride_h = o.stride[0], stride_w = o.stride[1];
  const Steps steps = transposed ? Steps{1, 1, stride_h, stride_w} : Steps{stride_h, stride_w, 1, 1};
  std::vector<Tensor> dense;
  for (const Tensor& weight : weights) dense.push_back(weight.contiguous());
  MIXDET_DISPATCH(out.scalar_type(), [&] {
    using T = Accumulator<scalar_t>;
    const auto source = view<const scalar_t>(in);
    const auto target = view<scalar_t>(out);
    const int64_t rows = (out.size(2) + steps.out_h - 1) / steps.out_h;
    const int64_t columns = (out.size(3) + steps.out_w - 1) / steps.out_w * steps.in_w;
    const Plan plan = make_plan<T>(groups, stride_h, stride_w, transposed, 1, columns);
    int64_t strip = rows;
    for (const Block& block : plan.blocks) {
      const int64_t row_bytes = (columns + block.window.width()) * block.count * kVectorBytes;
      strip = std::min(strip, rows_at_a_time(rows, row_bytes, steps.in_h, block.window.height()));
    }
    std::unique_ptr<Vec<T>[]> packed(new Vec<T>[plan.size]);
    const int64_t num_blocks = plan.blocks.size(), num_strips = (rows + strip - 1) / strip;
    parallel_for(plan.lanes.size(), 16, [&](int64_t begin, int64_t end) {
      for (int64_t v = begin; v < end; ++v) {
        const Lanes& lanes = plan.lanes[v];
        pack<T, scalar_t>(dense, groups, lanes, plan.gathers[lanes.gather], packed.get() + lanes.start);
      }
    });
    const Tensor added = bias ? bias->to(c10::CppTypeToScalarType<T>::value).contiguous() : Tensor();
    // neighbouring blocks share cache lines of the image, so they are computed one after the other
    const int64_t tasks = source.batch * num_strips * num_blocks;
    const int64_t pixels = std::min(in.size(2) * in.size(3), out.size(2) * out.size(3)) * source.batch;
    parallel_for(tasks, grain(tasks, work_of(groups, pixels)), [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task / num_blocks % num_strips * strip;
        gather_rows<T, scalar_t>(source, target, plan, plan.blocks[task % num_blocks], steps, packed.get(),
                                 added.defined() ? added.const_data_ptr<T>() : nullptr, activation,
                                 task / num_blocks / num_strips, first, std::min(first + strip, rows));
      }
    });
  });
}

inline Tensor forward_cpu(const Tensor& x, TensorList weights, const OptionalTensor& bias, IntArrayRef stride,
                          IntArrayRef padding, IntArrayRef dilation, bool same, c10::string_view activation) {
  const Options o{stride.vec(), padding.vec(), dilation.vec(), same};
  const auto shapes = shapes_of(weights);
  check(x, shapes, "input");
  check_types(x, weights);
  if (bias) check_types(x, {*bias});
  TORCH_CHECK_VALUE(!bias || (bias->dim() == 1 && bias->size(0) == x.size(1)),
                    "mixconv2d: bias must have one value for each channel");
  const auto groups = make_groups(shapes, o, x.size(2), x.size(3));
  const auto [height, width] = output_size(groups, o, x.size(2), x.size(3));
  Tensor out = at::empty({x.size(0), x.size(1), height, width}, x.options(), layout(x));
  gather(x, out, weights, bias, groups, o, false, activation_of(activation));
  return out;
}

inline Tensor input_grad_cpu(const Tensor& grad, TensorList weights, IntArrayRef size, IntArrayRef stride,
                             IntArrayRef padding, IntArrayRef dilation, bool same) {
  const Options o{stride.vec(), padding.vec(), dilation.vec(), same};
  const auto shapes = shapes_of(weights);
  check(grad, shapes, "grad");
  check_types(grad, weights);
  TORCH_CHECK_VALUE(size.size() == 2, "mixconv2d: size must be (height, width)");
  const auto groups = make_groups(shapes, o, size[0], size[1]);
  TORCH_CHECK_VALUE(output_size(groups, o, size[0], size[1]) == std::make_pair(grad.size(2), grad.size(3)),
                    "mixconv2d: grad does not have the output's size");
  Tensor out = at::empty({grad.size(0), grad.size(1), size[0], size[1]}, grad.options(), layout(grad));
  gather(grad, out, weights, OptionalTensor(), groups, o, true, Activation::none);
  return out;
}

inline std::vector<Tensor> weight_grad_cpu(const Tensor& grad, const Tensor& x, IntArrayRef shapes, IntArrayRef stride,
                                           IntArrayRef padding, IntArrayRef dilation, bool same) {
  const Options o{stride.vec(), padding.vec(), dilation.vec(), same};
  TORCH_CHECK_VALUE(shapes.size() % 3 == 0, "mixconv2d: kernel must be (channels, height, width) for each group");
  check(grad, shapes, "grad");
  check(x, shapes, "input");
  check_types(x, {grad});
  const auto groups = make_groups(shapes, o, x.size(2), x.size(3));
  TORCH_CHECK_VALUE(x.size(0) == grad.size(0) &&
                        output_size(groups, o, x.size(2), x.size(3)) == std::make_pair(grad.size(2), grad.size(3)),
                    "mixconv2d: grad does not have the output's size");
  std::vector<Tensor> results;
  for (const Group& g : groups) results.push_back(at::empty({g.channels, 1, g.kernel_h, g.kernel_w}, x.options()));
  MIXDET_DISPATCH(x.scalar_type(), [&] {
    using T = Accumulator<scalar_t>;
    constexpr int lanes = Simd<T>::lanes;
    const auto pixels = view<const scalar_t>(x);
    const auto gradients = view<const scalar_t>(grad);
    const Plan plan = make_plan<T>(groups, o.stride[0], o.stride[1], false, kTaps, x.size(3));
    const int64_t num_blocks = plan.blocks.size();
    // with few blocks for many threads the images are divided too, and the sums of the parts added in order
    const int64_t threads = at::get_num_threads();
    const int64_t parts =
        threads == 1 ? 1 : std::max<int64_t>(1, std::min(pixels.batch, (2 * threads + num_blocks - 1) / num_blocks));
    std::vector<scalar_t*> targets;
    for (const Tensor& result : results) targets.push_back(result.mutable_data_ptr<scalar_t>());
    std::unique_ptr<Vec<T>[]> sums(new Vec<T>[plan.size * parts]);
    const int64_t tasks = num_blocks * parts;
    const int64_t work = work_of(groups, grad.size(0) * grad.size(2) * grad.size(3));
    parallel_for(tasks, grain(tasks, work), [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t b = task % num_blocks, part = task / num_blocks;
        const Block& block = plan.blocks[b];
        Vec<T>* out = sums.get() + part * plan.size;
        std::fill(out + plan.start(block.first), out + plan.start(block.first + block.count), Vec<T>{});
        weight_gradient<T, scalar_t>(pixels, gradients, plan, block, o.stride[0], o.stride[1],
                                     pixels.batch * part / parts, pixels.batch * (part + 1) / parts, out);
      }
    });
    parallel_for(plan.lanes.size(), 16, [&](int64_t begin, int64_t end) {
      for (int64_t v = begin; v < end; ++v) {
        const Lanes& at = plan.lanes[v];
        for_groups(groups, at, plan.gathers[at.gather],
                   [&](int64_t g, int64_t first, int64_t last, const auto& places) {
                     const int64_t taps = groups[g].taps();
                     scalar_t* target = targets[g] + (at.first_channel - groups[g].first_channel) * taps;
                     for (int64_t k = 0; k < taps; ++k) {
                       for (int64_t i = first; i < last; ++i) {
                         T sum = 0;
                         for (int64_t part = 0; part < parts; ++part)
                           sum += sums[part * plan.size + at.start + places[k]][i % lanes];
                         target[i * taps + k] = static_cast<scalar_t>(sum);
                       }
                     }
                   });
      }
    });
  });
  return results;
}

}  // namespace mixdet

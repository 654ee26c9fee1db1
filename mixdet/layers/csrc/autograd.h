// Autograd. The three operators are derivatives of one another, because each is linear in each of its two tensors; with
// gradients of all three, derivatives of any order work.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops.h"

namespace mixdet {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

inline Tensor call_forward(const Tensor& x, TensorList weights, const OptionalTensor& bias, const Options& o,
                           c10::string_view activation = "none") {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("mixdet::mixconv2d", "").typed<decltype(forward_cpu)>();
  return op.call(x, weights, bias, o.stride, o.padding, o.dilation, o.same, activation);
}

inline Tensor call_input_grad(const Tensor& grad, TensorList weights, c10::SymIntArrayRef size, const Options& o) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mixdet::mixconv2d_input_grad", "")
          .typed<Tensor(const Tensor&, TensorList, c10::SymIntArrayRef, IntArrayRef, IntArrayRef, IntArrayRef, bool)>();
  return op.call(grad, weights, size, o.stride, o.padding, o.dilation, o.same);
}

inline std::vector<Tensor> call_weight_grad(const Tensor& grad, const Tensor& x, IntArrayRef shapes, const Options& o) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mixdet::mixconv2d_weight_grad", "")
                             .typed<decltype(weight_grad_cpu)>();
  return op.call(grad, x, shapes, o.stride, o.padding, o.dilation, o.same);
}

// Whether autograd must record a computation from these tensors: for a gradient, or to refuse forward differentiation.
inline bool recorded(const Tensor& first, TensorList rest, const OptionalTensor& last = OptionalTensor()) {
  const auto wanted = [](const Tensor& x) {
    return x.defined() && ((x.requires_grad() && at::GradMode::is_enabled()) || x._fw_grad(0).defined());
  };
  return wanted(first) || std::any_of(rest.begin(), rest.end(), wanted) || (last && wanted(*last));
}

inline void save(AutogradContext* ctx, const Options& o) {
  // one entry in the map instead of four
  std::vector<int64_t> values{o.same};
  for (const auto& part : {o.stride, o.padding, o.dilation}) values.insert(values.end(), part.begin(), part.end());
  ctx->saved_data["options"] = std::move(values);
}

inline Options saved(AutogradContext* ctx) {
  const std::vector<int64_t> values = ctx->saved_data["options"].toIntVector();
  const auto middle = values.begin() + 3 + (values.size() - 3) / 2;
  return {
      {values.begin() + 1, values.begin() + 3}, {values.begin() + 3, middle}, {middle, values.end()}, values[0] != 0};
}

inline bool any_needed(AutogradContext* ctx, size_t begin, size_t count) {
  for (size_t i = begin; i < begin + count; ++i) {
    if (ctx->needs_input_grad(i)) return true;
  }
  return false;
}

// The gradients in the order of apply's arguments: of the first tensor, of `count` weights (undefined if there are
// none), and the rest.
inline variable_list gradients(Tensor first, const std::vector<Tensor>& weights, size_t count,
                               std::initializer_list<Tensor> rest) {
  variable_list all{std::move(first)};
  all.insert(all.end(), weights.begin(), weights.end());
  all.resize(1 + count);
  all.insert(all.end(), rest);
  return all;
}

inline variable_list tail(const variable_list& list, size_t begin) {
  return variable_list(list.begin() + begin, list.end());
}

struct Forward : torch::autograd::Function<Forward> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, TensorList weights, const OptionalTensor& bias,
                        const Options& o) {
    at::AutoDispatchBelowADInplaceOrView guard;
    variable_list kept{x};
    kept.insert(kept.end(), weights.begin(), weights.end());
    ctx->save_for_backward(kept);
    save(ctx, o);
    if (bias) ctx->saved_data["bias"] = true;
    return call_forward(x, weights, bias, o);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Options o = saved(ctx);
    const variable_list kept = ctx->get_saved_variables(), weights = tail(kept, 1);
    const Tensor &grad = grads[0], &x = kept[0];
    Tensor x_grad, bias_grad;
    std::vector<Tensor> weight_grads;
    if (ctx->needs_input_grad(0)) x_grad = call_input_grad(grad, weights, x.sym_sizes().slice(2), o);
    if (any_needed(ctx, 1, weights.size())) weight_grads = call_weight_grad(grad, x, shapes_of(weights), o);
    if (ctx->saved_data.count("bias") && ctx->needs_input_grad(1 + weights.size())) bias_grad = grad.sum({0, 2, 3});
    return gradients(x_grad, weight_grads, weights.size(), {bias_grad, Tensor()});
  }
};

struct InputGrad : torch::autograd::Function<InputGrad> {
  static Tensor forward(AutogradContext* ctx, const Tensor& grad, TensorList weights, c10::SymIntArrayRef size,
                        const Options& o) {
    at::AutoDispatchBelowADInplaceOrView guard;
    variable_list kept{grad};
    kept.insert(kept.end(), weights.begin(), weights.end());
    ctx->save_for_backward(kept);
    save(ctx, o);
    return call_input_grad(grad, weights, size, o);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Options o = saved(ctx);
    const variable_list kept = ctx->get_saved_variables(), weights = tail(kept, 1);
    Tensor grad_grad;
    std::vector<Tensor> weight_grads;
    if (ctx->needs_input_grad(0)) grad_grad = call_forward(grads[0], weights, OptionalTensor(), o);
    if (any_needed(ctx, 1, weights.size())) weight_grads = call_weight_grad(kept[0], grads[0], shapes_of(weights), o);
    return gradients(grad_grad, weight_grads, weights.size(), {Tensor(), Tensor(), Tensor()});
  }
};

struct WeightGrad : torch::autograd::Function<WeightGrad> {
  static variable_list forward(AutogradContext* ctx, const Tensor& grad, const Tensor& x,
                               const std::vector<int64_t>* shapes, const Options& o) {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({grad, x});
    save(ctx, o);
    ctx->saved_data["shapes"] = *shapes;
    return call_weight_grad(grad, x, *shapes, o);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Options o = saved(ctx);
    const variable_list kept = ctx->get_saved_variables();
    const auto shapes = ctx->saved_data["shapes"].toIntVector();
    variable_list weights;
    for (size_t i = 0; i < grads.size(); ++i) {
      weights.push_back(grads[i].defined()
                            ? grads[i]
                            : at::zeros({shapes[3 * i], 1, shapes[3 * i + 1], shapes[3 * i + 2]}, kept[0].options()));
    }
    Tensor grad_grad, x_grad;
    if (ctx->needs_input_grad(0)) grad_grad = call_forward(kept[1], weights, OptionalTensor(), o);
    if (ctx->needs_input_grad(1)) x_grad = call_input_grad(kept[0], weights, kept[1].sym_sizes().slice(2), o);
    return {grad_grad, x_grad, Tensor(), Tensor()};
  }
};

inline Tensor forward_autograd(const Tensor& x, TensorList weights, const OptionalTensor& bias, IntArrayRef stride,
                               IntArrayRef padding, IntArrayRef dilation, bool same, c10::string_view activation) {
  const Options o{stride.vec(), padding.vec(), dilation.vec(), same};
  if (recorded(x, weights, bias)) {
    TORCH_CHECK(activation == "none",
                "mixconv2d: an activation inside the operator has no gradient; apply it to the result");
    return Forward::apply(x, weights, bias, o);
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return call_forward(x, weights, bias, o, activation);
}

inline Tensor input_grad_autograd(const Tensor& grad, TensorList weights, c10::SymIntArrayRef size, IntArrayRef stride,
                                  IntArrayRef padding, IntArrayRef dilation, bool same) {
  const Options o{stride.vec(), padding.vec(), dilation.vec(), same};
  if (recorded(grad, weights)) return InputGrad::apply(grad, weights, size, o);
  at::AutoDispatchBelowADInplaceOrView guard;
  return call_input_grad(grad, weights, size, o);
}

inline std::vector<Tensor> weight_grad_autograd(const Tensor& grad, const Tensor& x, IntArrayRef shapes,
                                                IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                                                bool same) {
  const Options o{stride.vec(), padding.vec(), dilation.vec(), same};
  if (recorded(grad, {x})) {
    const std::vector<int64_t> kept = shapes.vec();
    return WeightGrad::apply(grad, x, &kept, o);
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return call_weight_grad(grad, x, shapes, o);
}

}  // namespace mixdet

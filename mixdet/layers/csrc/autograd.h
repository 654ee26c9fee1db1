// Derivatives. The three operators are derivatives of one another (each is linear in each of its two tensors), so
// giving all three a gradient makes every order of differentiation work.
#pragma once

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

inline void save(AutogradContext* ctx, const Options& o) {
  ctx->saved_data["stride"] = o.stride;
  ctx->saved_data["padding"] = o.padding;
  ctx->saved_data["dilation"] = o.dilation;
  ctx->saved_data["same"] = o.same;
}

inline Options saved(AutogradContext* ctx) {
  return {ctx->saved_data["stride"].toIntVector(), ctx->saved_data["padding"].toIntVector(),
          ctx->saved_data["dilation"].toIntVector(), ctx->saved_data["same"].toBool()};
}

inline bool any_needed(AutogradContext* ctx, size_t begin, size_t count) {
  for (size_t i = begin; i < begin + count; ++i) {
    if (ctx->needs_input_grad(i)) return true;
  }
  return false;
}

// The gradients of one tensor, of weights or of nothing, in the order of apply's arguments.
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
    ctx->saved_data["bias"] = bias.has_value() && bias->defined();
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
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(1 + weights.size())) bias_grad = grad.sum({0, 2, 3});
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
    if (ctx->needs_input_grad(0)) grad_grad = call_forward(grads[0], weights, std::nullopt, o);
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
    if (ctx->needs_input_grad(0)) grad_grad = call_forward(kept[1], weights, std::nullopt, o);
    if (ctx->needs_input_grad(1)) x_grad = call_input_grad(kept[0], weights, kept[1].sym_sizes().slice(2), o);
    return {grad_grad, x_grad, Tensor(), Tensor()};
  }
};

inline Tensor forward_autograd(const Tensor& x, TensorList weights, const OptionalTensor& bias, IntArrayRef stride,
                               IntArrayRef padding, IntArrayRef dilation, bool same, c10::string_view activation) {
  const Options o{stride.vec(), padding.vec(), dilation.vec(), same};
  if (activation != "none") {
    bool needed = x.requires_grad() || (bias && bias->requires_grad());
    for (const Tensor& weight : weights) needed = needed || weight.requires_grad();
    TORCH_CHECK(!(needed && at::GradMode::is_enabled()),
                "mixconv2d: an activation inside the operator has no gradient; apply it to the result");
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_forward(x, weights, bias, o, activation);
  }
  return Forward::apply(x, weights, bias, o);
}

inline Tensor input_grad_autograd(const Tensor& grad, TensorList weights, c10::SymIntArrayRef size, IntArrayRef stride,
                                  IntArrayRef padding, IntArrayRef dilation, bool same) {
  return InputGrad::apply(grad, weights, size, Options{stride.vec(), padding.vec(), dilation.vec(), same});
}

inline std::vector<Tensor> weight_grad_autograd(const Tensor& grad, const Tensor& x, IntArrayRef shapes,
                                                IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                                                bool same) {
  const std::vector<int64_t> kept = shapes.vec();
  return WeightGrad::apply(grad, x, &kept, Options{stride.vec(), padding.vec(), dilation.vec(), same});
}

}  // namespace mixdet

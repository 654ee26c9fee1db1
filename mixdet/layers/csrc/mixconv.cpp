// Operators of PyTorch for the CPU: the mixed depthwise convolution of all groups at once and its two gradients, and
// batch-norm with the activation that follows it.
#include "autograd.h"
#include "batch_norm.h"

namespace mixdet {

TORCH_LIBRARY(mixdet, m) {
  m.def(
      "mixconv2d(Tensor input, Tensor[] weight, Tensor? bias, int[] stride, int[] padding, int[] dilation, bool same, "
      "str activation) -> Tensor");
  m.def(
      "mixconv2d_input_grad(Tensor grad, Tensor[] weight, SymInt[] size, int[] stride, int[] padding, int[] dilation, "
      "bool same) -> Tensor");
  m.def(
      "mixconv2d_weight_grad(Tensor grad, Tensor input, int[] kernel, int[] stride, int[] padding, int[] dilation, "
      "bool same) -> Tensor[]");
  m.def(
      "batch_norm_clamp(Tensor input, Tensor weight, Tensor bias, float eps, float low, float high) -> (Tensor, "
      "Tensor)");
  m.def(
      "batch_norm_clamp_backward(Tensor grad, Tensor input, Tensor weight, Tensor statistics, float eps, float low, "
      "float "
      "high) -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(mixdet, CPU, m) {
  m.impl("mixconv2d", forward_cpu);
  m.impl("mixconv2d_input_grad", input_grad_cpu);
  m.impl("mixconv2d_weight_grad", weight_grad_cpu);
  m.impl("batch_norm_clamp", batch_norm_clamp);
  m.impl("batch_norm_clamp_backward", batch_norm_clamp_backward);
}

TORCH_LIBRARY_IMPL(mixdet, Autograd, m) {
  m.impl("mixconv2d", forward_autograd);
  m.impl("mixconv2d_input_grad", input_grad_autograd);
  m.impl("mixconv2d_weight_grad", weight_grad_autograd);
}

}  // namespace mixdet

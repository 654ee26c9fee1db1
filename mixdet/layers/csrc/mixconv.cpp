// Mixed depthwise convolution of all groups as one PyTorch operator for the CPU, and its two gradients.
#include "autograd.h"

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
}

TORCH_LIBRARY_IMPL(mixdet, CPU, m) {
  m.impl("mixconv2d", forward_cpu);
  m.impl("mixconv2d_input_grad", input_grad_cpu);
  m.impl("mixconv2d_weight_grad", weight_grad_cpu);
}

TORCH_LIBRARY_IMPL(mixdet, Autograd, m) {
  m.impl("mixconv2d", forward_autograd);
  m.impl("mixconv2d_input_grad", input_grad_autograd);
  m.impl("mixconv2d_weight_grad", weight_grad_autograd);
}

}  // namespace mixdet

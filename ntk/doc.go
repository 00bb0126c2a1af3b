// Package ntk computes empirical neural tangent kernels of a model's MLP blocks
// and compares those of a compressed model with the original's.
//
// For example i, g_i is the gradient of f, the softmax probability of class 0
// (of a regression model its output), with respect to the parameters of one
// block: W1, b1, W2, b2, or the factors that stand for them. The rest of the
// model is as loaded and dropout is off. The kernels, with n examples n×n:
//
//	Adam  K_ij = ⟨g_i, sign(g_j)⟩    the asymmetric sign kernel, sign(0) = 0
//	SGD   K_ij = ⟨g_i, g_j⟩
//
// A first step of training on example j with a small learning rate changes f of
// example i in proportion to K_ij. Where units take steps of their own, the
// kernels do as training does: the products of hidden unit k's parameters count
// a_k times, with a_k the unit's step multiplier (1 without one) and, for SGD,
// divided by the cluster size P_k, by which fused units' learning rates have to
// be divided ("P in training" in docs/method.md).
//
// The gradients themselves, n × parameters, are never held. A linear layer's
// gradient is G_i = Σ_t δ_t·x_tᵀ over the example's tokens, so a batched backward
// pass that keeps x and δ has them all. See docs/ntk.md.
package ntk

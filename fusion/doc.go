// Package fusion compresses one MLP block of a transformer at a time: weight
// matrices in, a smaller block out. It knows nothing of models or files.
//
// Words: p is the hidden size; p_I the intermediate size, the number of hidden
// units; c the fused width. A hidden unit, or sub-MLP, is everything that
// belongs to it: its row of the up projection, its bias, its column of the
// down projection (and its row of the gate). The block is the sum of its
// sub-MLPs, whatever their order, which is why they can be clustered.
//
// The methods are those of "MLP Fusion: Towards Efficient Fine-tuning of Dense
// and Mixture-of-Experts Language Models" (arXiv 2307.08941), calibrated, which is
// this project's, and baselines of others; Methods lists them. Lookup finds one by
// name:
//
//	m, err := fusion.Lookup("fusion")
//	block, err := m.Compress(ctx, &mlp, fusion.Options{Width: 384, Pool: pool})
//
// Every method takes gated and plain MLPs, with biases or without; an expert
// of a mixture is one MLP. The same options give the same bytes whatever the
// number of workers.
package fusion

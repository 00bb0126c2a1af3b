// Package generate writes text with a language model: greedily, by sampling, or
// by beam search, with the choices and the tokens of transformers' generate. The
// prompts of a batch each have their own length, without padding, and as one
// ends the next takes its place.
//
//	g, err := generate.New(pool, m, kernel.FP32)
//	results, err := g.Run(ctx, prompts, generate.Options{MaxNewTokens: 64, Stop: []int32{50256}}, generate.Watch{})
//
// What is written for a prompt depends on the prompt, the options and its place
// among the prompts, not on the batch or the number of threads.
package generate

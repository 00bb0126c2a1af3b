// Package experiment compares ways to compress a model: methods × tasks × widths
// × seeds (× learning rates, treatments of P, tuning). Each cell of the
// comparison is fused, measured, perhaps tuned, fine-tuned and evaluated, and
// kept as one file of JSON, so that a killed comparison goes on where it was and
// shards of it may run on several machines.
//
// The folder of a comparison holds
//
//	comparison.json   the configuration
//	cells/ID.json     a finished Cell each
//	models/           compressed models, shared by the cells that start from them
//	kernels/          tangent kernels as numpy files, the original's shared
//	runs/             training under way, which a stopped cell goes on with
package experiment

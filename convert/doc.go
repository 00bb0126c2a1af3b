// Package convert turns checkpoint directories into others: Fuse compresses MLP
// blocks, Export makes what plain transformers loads, Inspect tells what is in
// one. Weights are read a block at a time, or a layer where texts pass through, and
// written as they come, so that memory does not grow with the checkpoint.
package convert

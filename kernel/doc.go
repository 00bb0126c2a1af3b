// Package kernel holds the arithmetic that everything else is built from:
// matrix products (Gemm), vector functions, and the pool of workers they run
// on. It knows nothing of models.
//
// Matrices are row-major float32 slices with a stride. The portable Go code is
// always compiled and is the oracle the assembly is tested against; which
// implementation runs is chosen once, at start, from what the CPU can do.
//
// Every result is independent of the number of workers: each element of an
// output is computed by one worker, with a fixed order of summation, and
// reductions go by chunk index.
package kernel

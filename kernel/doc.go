// Package kernel holds the arithmetic that everything else is built from:
// matrix products (Gemm), vector functions, and the pool of workers they run
// on. It knows nothing of models.
//
// Matrices are row-major float32 slices with a stride.
//
// # Implementations
//
// Every function has a portable implementation in plain Go, which is always
// compiled and is the oracle that the assembly is tested against. On amd64 and arm64
// there is assembly too, written by the generators in _generate, a module of its own:
// `make generate` runs them again and must change nothing. A build with the tag
// noasm has none of it.
//
// Each function's implementations are registered with the extensions of the
// instruction set that they need (forms_amd64.go, forms_arm64.go), and the best that the processor
// and the operating system can run is in use from the start; [Kernels] names them.
// Products of bfloat16 are never slower than float32's: where VDPBF16PS is, as on
// Intel's processors without AMX, inputs are rounded to bfloat16 and multiplied as
// float32. The environment variable MLPFUSION_ISA (portable, avx2, avx512,
// avx512bf16, amx, neon, neonbf16) holds back what goes beyond that level.
//
// The vector functions have one source for AVX2 and AVX-512 with the vector width as
// a parameter: 8 or 16 lanes, the last elements under a mask, so that nothing outside
// a slice is read or written. Only GELU and GELUTanh have two forms, as AVX-512 looks
// them up in a table. NEON has no masks: its loops end with a vector of two elements and
// one of one. The tests run every implementation of amd64 on every such machine: one whose
// instructions the machine lacks is interpreted, line by line of its assembly. Those of
// arm64 run under an emulator, `make test-arm64`.
//
// # Results
//
// Every result is independent of the number of workers: each element of an
// output is computed by one worker, with a fixed order of summation, and
// reductions go by chunk index. So a machine gives the same bytes each time; two
// levels may differ in rounding, for they sum in different orders and only the
// assembly fuses multiplication and addition. Dropout's bits, AddColumns, AddTo,
// Mul and the bfloat16 conversions are the same bytes at every level.
//
// The assembly's exp is within 0.9 ulp and its tanh within 1.6 ulp of the exact
// value. GELU, GELUTanh, SiLU and Tanh are within 2e-7·max(1, |x|), their
// derivatives within 2.5e-7. Results of exp below the normal numbers (1.2e-38)
// are 0. At ±Inf activations give their limits, and NaN gives NaN. See
// TestActivationError, TestExpULP and TestTanhULP, which with -every 1 measure
// all float32 bit patterns.
package kernel

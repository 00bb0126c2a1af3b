package kernel

//go:generate go -C _generate run ./gemm ../gemm_amd64.s
//go:generate go -C _generate run ./vector -out ../vector_amd64.s -stubs ../vector_amd64.go -pkg kernel
//go:generate go -C _generate run ./neon ../neon_arm64.s ../neon_arm64.go

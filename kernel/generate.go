package kernel

//go:generate go -C _generate run ./gemm ../gemm_amd64.s

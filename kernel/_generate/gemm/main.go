// Command gemm writes the assembly of the matrix product: microkernels and the
// functions that pack their operands.
package main

import . "github.com/mmcloughlin/avo/build"

//go:generate go run . -out ../../gemm_amd64.s

func main() {
	ConstraintExpr("!noasm")
	for rows := 1; rows <= 6; rows++ {
		tileAVX2(rows)
	}
	transposeAVX2()
	copyPanelsAVX2()
	copyTileAVX2()
	roundBF16AVX2()
	epilogueAVX2()
	Generate()
}

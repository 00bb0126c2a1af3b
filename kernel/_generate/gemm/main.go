// Command gemm writes the assembly of the matrix product: microkernels and the
// functions that pack their operands. avo prints what Go's assembler knows;
// instructions that it lacks are emitted as bytes (see encode.go).
//
//	go generate ./kernel
package main

import (
	"fmt"
	"os"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
)

// gen collects the functions of one file. Registers are chosen by hand.
type gen struct {
	*build.Context
	emitted map[*ir.Instruction]machine // the instructions that are emitted as bytes
	order   operand.Mem                 // see joinOrder
	upper   operand.Mem                 // see upperHalves
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gemm <file to write>")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "gemm:", err)
		os.Exit(1)
	}
}

func write(path string) error {
	f, _, err := generate()
	if err != nil {
		return err
	}
	text, err := printer.NewGoAsm(printer.Config{Name: "kernel/_generate/gemm", Pkg: "kernel"}).Print(f)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

// generate builds all functions.
func generate() (*ir.File, map[*ir.Instruction]machine, error) {
	g := &gen{Context: build.NewContext(), emitted: map[*ir.Instruction]machine{}}
	g.ConstraintExpr("!noasm")
	g.upperHalves()
	for _, name := range []string{"AVX2", "HalvesAVX2", "BytesAVX2"} {
		for rows := 1; rows <= 6; rows++ {
			g.tileAVX2(rows, name)
		}
	}
	for _, name := range []string{"AVX512", "HalvesAVX512", "BytesAVX512", "BF16"} {
		for rows := 1; rows <= 12; rows++ {
			g.tileAVX512(rows, name)
		}
	}
	g.tileAMX()
	g.transposeAVX2()
	g.copyPanelsAVX2(16)
	g.copyPanelsAVX2(32)
	g.roundBF16AVX2()
	g.joinRowsAVX2(16)
	g.joinRowsAVX2(32)
	g.epilogueAVX2()
	g.joinOrder()
	g.pairPanelsBF16()
	g.transposePairsBF16()
	g.pairRowsBF16()
	g.pairRowBF16()
	f, err := g.Result()
	if err != nil {
		return nil, nil, err
	}
	return f, g.emitted, pass.Compile.Execute(f)
}

// function begins a function without a stack frame.
func (g *gen) function(name, signature string) {
	g.Function(name)
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr(signature)
}

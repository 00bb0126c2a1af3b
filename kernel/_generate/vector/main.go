// Command vector writes the assembly of the vector functions. It runs in the folder
// above, as kernel/generate.go says.
package main

import (
	"fmt"
	"strings"

	. "github.com/mmcloughlin/avo/build"
)

func main() {
	ConstraintExpr("!noasm")
	for _, w := range []lanes{avx2, avx512} {
		dot(w)
		axpy(w)
		mul(w)
		addTo(w)
		addRows4(w)
		sumSquares(w, false)
		sumSquares(w, true)
		maxScaled(w)
		expSum(w)
		softmax(w)
		scale(w)
		softmaxGrad(w)
		layerNorm(w)
		layerNormGrad(w)
		rmsNorm(w)
		rmsNormGrad(w)
		adam(w, false)
		adam(w, true)
		for _, a := range activations {
			activate(w, a, false)
			activate(w, a, true)
			gated(w, a)
			gatedGrad(w, a)
		}
		dropout(w)
		widen(w)
		widenBytes(w)
	}
	Generate()
}

// function begins a function for the instruction set of w.
func function(w lanes, name, params, result, doc string) {
	name += w.suffix()
	TEXT(name, NOSPLIT, strings.TrimSpace(fmt.Sprintf("func(%s) %s", params, result)))
	Pragma("noescape")
	Doc(name + " " + doc)
}

// ret returns, leaving the registers as scalar code wants them.
func ret() {
	VZEROUPPER()
	RET()
}

// Package minimax holds the polynomials that the vector functions are made of: their
// coefficients, those of low powers first.
package minimax

// Exp gives e^r for |r| ≤ ln 2 / 2, with a relative error of 3.1e-9.
var Exp = []float64{1, 1, 0.499999934477791, 0.1666652063162739, 0.0416683880488322, 0.008368716887316937, 0.0013814598475029747}

// Log2E is 1/ln 2, and Ln2High + Ln2Low are ln 2, the first with zeros at its end.
const (
	Log2E   = 1.4426950408889634
	Ln2High = 0.693359375
	Ln2Low  = -2.12194440054690583e-4
)

// Tanh is P of tanh x = x + x³·P(x²) for |x| ≤ TanhNear, with a relative error of 4.1e-9 in
// the result.
var Tanh = []float64{-0.3333328392529561, 0.1333149128694488, -0.05374349806384046, 0.020650587217951075, -0.005717044954214857}

const TanhNear = 0.625

// Normal is P of Φ(−|x|) = e^(−x²/2)·t·P(t), t = 1/(1 + NormalT·|x|), the form of Abramowitz
// and Stegun, 7.1.26, with a relative error of 3.2e-8 for |x| ≤ 20.
var Normal = []float64{0.13962156977666834, 0.13985908284354165, 0.11985243338503782, 0.10543295174499384, -0.022937172870965146,
	0.1589293399619962, -0.25550460718873547, 0.14387225606021842, -0.029125869592911358}

const (
	NormalT       = 0.35
	InverseRoot2π = 0.3989422804014327
)

// GELUTanhC and GELUTanhK are of 2u = C·(x + K·x³), C = √(8/π).
const GELUTanhC, GELUTanhK = 1.5957691216057308, 0.044715

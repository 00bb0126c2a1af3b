package kernel

import "math"

var (
	softmax     = portable(softmaxPortable)
	maxScaled   = portable(maxScaledPortable)
	expSum      = portable(expSumPortable)
	softmaxGrad = portable(softmaxGradPortable)
)

// Softmax replaces each row of n elements of x by exp(x_i − max)/Σ exp(x_j − max),
// where max is the row's largest element. −Inf stands for elements that are masked
// out. Quotients below about 1e-38 may come out as 0. x holds whole rows.
func Softmax(x []float32, n int) {
	switch {
	case len(x) == 0:
		return
	case len(x)%n != 0:
		panic("kernel: Softmax: x does not hold whole rows")
	}
	softmax.use(x, n)
}

func softmaxPortable(x []float32, n int) {
	for ; len(x) > 0; x = x[n:] {
		scalePortable(x[:n], 1/expSumPortable(x[:n], 1, maxScaledPortable(x[:n], 1)))
	}
}

// MaxScaled returns the largest scale·x_i, and −Inf for no elements.
func MaxScaled(x []float32, scale float32) float32 { return maxScaled.use(x, scale) }

func maxScaledPortable(x []float32, scale float32) float32 {
	m := float32(math.Inf(-1))
	for _, v := range x {
		m = max(m, v*scale)
	}
	return m
}

// ExpSum replaces x_i by exp(scale·x_i − top) and returns the sum of these. top
// must be no less than the largest scale·x_i, rounding apart. Results below the
// normal numbers (1.2e-38) may come out as 0.
func ExpSum(x []float32, scale, top float32) float32 { return expSum.use(x, scale, top) }

func expSumPortable(x []float32, scale, top float32) float32 {
	var s float64 // a vocabulary is long, and all its terms are positive
	for i, v := range x {
		x[i] = float32(math.Exp(float64(scale)*float64(v) - float64(top)))
		s += float64(x[i])
	}
	return float32(s)
}

// SoftmaxGrad replaces dp, the gradient with respect to the probabilities p =
// softmax(scale·x), by the gradient with respect to x.
func SoftmaxGrad(dp, p []float32, scale float32) {
	dp = dp[:len(p)]
	softmaxGrad.use(dp, p, scale, Dot(dp, p))
}

// softmaxGradPortable is SoftmaxGrad, given the dot product of dp and p.
func softmaxGradPortable(dp, p []float32, scale, dot float32) {
	for i, v := range p {
		dp[i] = scale * v * (dp[i] - dot)
	}
}

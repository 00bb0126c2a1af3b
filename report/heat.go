package report

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html"
	"image"
	"image/color"
	"image/png"
	"math"

	"mlpfusion/ntk"
)

// heat draws a kernel as a picture of at most 128 × 128 points, blue below and
// red above 0; strongest is the value of full colour.
func heat(label string, k *ntk.Kernel, strongest float64) (string, error) {
	const most = 128
	size := min(k.N, most)
	img := image.NewNRGBA(image.Rect(0, 0, size, size))
	for i := range size {
		for j := range size {
			// The mean of the entries that share the point.
			var sum float64
			n := 0
			for a := i * k.N / size; a < max((i+1)*k.N/size, i*k.N/size+1); a++ {
				for b := j * k.N / size; b < max((j+1)*k.N/size, j*k.N/size+1); b++ {
					sum += float64(k.Data[a*k.N+b])
					n++
				}
			}
			img.SetNRGBA(j, i, diverging(sum/float64(n)/strongest))
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return "", err
	}
	return fmt.Sprintf(`<img class="heat" alt="%s" data-plot="heat" data-marks="%d" src="data:image/png;base64,%s">`,
		html.EscapeString(label), size*size, base64.StdEncoding.EncodeToString(b.Bytes())), nil
}

// strongest is the value below which 99 % of a kernel's entries lie, without
// regard to sign, by a histogram.
func strongest(k *ntk.Kernel) float64 {
	top := 0.0
	for _, v := range k.Data {
		top = math.Max(top, math.Abs(float64(v)))
	}
	if top == 0 {
		return 1
	}
	const bins = 1000
	var count [bins + 1]int
	for _, v := range k.Data {
		count[int(math.Abs(float64(v))/top*bins)]++
	}
	sum := 0
	for i, n := range count {
		if sum += n; sum >= len(k.Data)*99/100 {
			return float64(i+1) / bins * top
		}
	}
	return top
}

// diverging is the colour of v in [-1, 1].
func diverging(v float64) color.NRGBA {
	v = math.Max(-1, math.Min(1, v))
	ends := [2][3]float64{{29, 78, 156}, {178, 34, 48}}
	zero := [3]float64{245, 244, 240}
	to := ends[1]
	if v < 0 {
		to, v = ends[0], -v
	}
	v = math.Pow(v, 0.7) // small values show
	mix := func(i int) uint8 { return uint8(zero[i] + v*(to[i]-zero[i]) + 0.5) }
	return color.NRGBA{mix(0), mix(1), mix(2), 255}
}

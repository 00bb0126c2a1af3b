package report

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"
)

// All plots are drawn 360 units wide, about a phone's width, so that their text
// is never smaller than it says; on a wide screen several stand side by side.
const plotWidth = 360

// scale maps values onto [from, to] of the drawing.
type scale struct {
	lo, hi, from, to float64
	log              bool
}

func (s scale) at(v float64) float64 {
	lo, hi := s.lo, s.hi
	if s.log {
		v, lo, hi = math.Log(v), math.Log(lo), math.Log(hi)
	}
	if hi == lo {
		return (s.from + s.to) / 2
	}
	return s.from + (v-lo)/(hi-lo)*(s.to-s.from)
}

// ticks are round numbers within the scale, about n of them.
func (s scale) ticks(n int) []float64 {
	var t []float64
	if s.log {
		for _, mantissas := range [][]float64{{1, 2, 5}, {1}} {
			t = t[:0]
			for e := math.Floor(math.Log10(s.lo)); e <= math.Log10(s.hi); e++ {
				for _, m := range mantissas {
					if v := m * math.Pow(10, e); v >= s.lo*0.999 && v <= s.hi*1.001 {
						t = append(t, v)
					}
				}
			}
			if len(t) <= n+2 {
				break
			}
		}
		return t
	}
	if s.hi <= s.lo {
		return []float64{s.lo}
	}
	step := math.Pow(10, math.Floor(math.Log10((s.hi-s.lo)/float64(n))))
	for _, m := range []float64{1, 2, 5, 10} {
		if (s.hi-s.lo)/(m*step) <= float64(n) {
			step *= m
			break
		}
	}
	for i := math.Ceil(s.lo/step - 1e-9); i*step <= s.hi+1e-9*step; i++ {
		t = append(t, i*step)
	}
	return t
}

// number prints a value shortly.
func number(v float64) string { return rounded(v, 3) }

// rounded prints a value to this many digits, at least 3.
func rounded(v float64, digits int) string {
	a := math.Abs(v)
	switch {
	case v == 0:
		return "0"
	case a >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', digits, 64) + "M"
	case a >= 1e4:
		return strconv.FormatFloat(v/1e3, 'g', digits, 64) + "k"
	case a >= 100:
		return strconv.FormatFloat(v, 'f', digits-3, 64)
	case a >= 0.001:
		return strconv.FormatFloat(v, 'g', digits, 64)
	}
	return strconv.FormatFloat(v, 'e', digits-3, 64)
}

// texts prints ticks with as many digits as tell them apart.
func texts(ticks []float64) []string {
	list := make([]string, len(ticks))
	const most = 9
	for digits := 3; digits <= most; digits++ {
		for i, t := range ticks {
			list[i] = rounded(t, digits)
		}
		if len(slices.Compact(slices.Clone(list))) == len(list) {
			break
		}
	}
	return list
}

// span is the smallest range of all values, with a margin on both sides.
type span struct {
	lo, hi float64
	any    bool
}

func (s *span) add(v float64) {
	if !s.any {
		s.lo, s.hi, s.any = v, v, true
	}
	s.lo, s.hi = min(s.lo, v), max(s.hi, v)
}

func (s span) scale(from, to float64, log bool) scale {
	lo, hi := s.lo, s.hi
	switch {
	case log && lo == hi:
		lo, hi = lo/2, hi*2
	case log:
		m := math.Pow(hi/lo, 0.06)
		lo, hi = lo/m, hi*m
	case lo == hi:
		d := math.Max(math.Abs(lo)/10, 1e-6)
		lo, hi = lo-d, hi+d
	default:
		d := 0.06 * (hi - lo)
		if lo >= 0 && lo < d {
			lo = 0
		} else {
			lo -= d
		}
		hi += d
	}
	return scale{lo, hi, from, to, log}
}

// svg collects a drawing.
type svg struct{ b strings.Builder }

func (s *svg) add(format string, args ...any) { fmt.Fprintf(&s.b, format, args...) }

func (s *svg) text(x, y float64, class, text string) {
	s.add(`<text x="%.1f" y="%.1f" class="%s">%s</text>`, x, y, class, html.EscapeString(text))
}

// tip is what a pointer over the mark before it shows.
func tip(format string, args ...any) string {
	return "<title>" + html.EscapeString(fmt.Sprintf(format, args...)) + "</title>"
}

// done closes the drawing. marks counts what was drawn of the data.
func (s *svg) done(kind, label string, height float64, marks int) string {
	return fmt.Sprintf(`<svg viewBox="0 0 %d %.0f" role="img" aria-label="%s" data-plot="%s" data-marks="%d">%s</svg>`,
		plotWidth, height, html.EscapeString(label), kind, marks, s.b.String())
}

// axes draws both axes with a grid, the x axis marked at the given values or,
// without any, at round ones.
func (s *svg) axes(x, y scale, xLabel, yLabel string, marks []float64) {
	ticks := y.ticks(5)
	for i, text := range texts(ticks) {
		at := y.at(ticks[i])
		s.add(`<path class="grid" d="M%.1f %.1fH%.1f"/>`, x.from, at, x.to)
		s.text(x.from-6, at+3.5, "tick end", text)
	}
	if marks == nil {
		marks = x.ticks(5)
	}
	for i, text := range texts(marks) {
		at := x.at(marks[i])
		s.add(`<path class="grid" d="M%.1f %.1fv4"/>`, at, y.from)
		s.text(at, y.from+16, "tick mid", text)
	}
	s.add(`<path class="axis" d="M%.1f %.1fH%.1f"/>`, x.from, y.from, x.to)
	s.text((x.from+x.to)/2, y.from+32, "label mid", xLabel)
	s.text(4, 11, "label", yLabel)
}

// below draws the x axis of rows that lie between top and bottom.
func (s *svg) below(x scale, top, bottom float64, label string) {
	ticks := x.ticks(4)
	for i, text := range texts(ticks) {
		at := x.at(ticks[i])
		s.add(`<path class="grid" d="M%.1f %.0fV%.1f"/>`, at, top, bottom)
		s.text(at, bottom+15, "tick mid", text)
	}
	s.text((x.from+x.to)/2, bottom+31, "label mid", label)
}

// series is a line or a group of points of one colour.
type series struct {
	name, class string
	x, y, err   []float64 // err: half the length of error bars, or nil
	dashed      bool
	tips        []string // of points; nil: made from the numbers
}

// lines draws lines over a common range. With dots, points are marked; without,
// only lines are drawn.
func lines(label, xLabel, yLabel string, all []series, logX, dots bool) string {
	var xs, ys span
	for _, l := range all {
		for i := range l.x {
			xs.add(l.x[i])
			e := 0.0
			if l.err != nil {
				e = l.err[i]
			}
			ys.add(l.y[i] - e)
			ys.add(l.y[i] + e)
		}
	}
	const height = 236
	x, y := xs.scale(44, plotWidth-10, logX), ys.scale(height-40, 20, false)
	if !logX && xs.lo >= 0 && !dots {
		x.lo, x.hi = xs.lo, xs.hi
	}
	var s svg
	var at []float64 // a logarithmic axis is marked at the values, which are few
	if logX {
		for _, l := range all {
			at = append(at, l.x...)
		}
		slices.Sort(at)
		at = slices.Compact(at)
	}
	s.axes(x, y, xLabel, yLabel, at)
	marks := 0
	for _, l := range all {
		dash := ""
		if l.dashed {
			dash = ` stroke-dasharray="5 4"`
		}
		var d strings.Builder
		for i := range l.x {
			fmt.Fprintf(&d, "%c%.1f %.1f", "ML"[min(i, 1)], x.at(l.x[i]), y.at(l.y[i]))
			marks++
		}
		s.add(`<g class="%s"><path class="line" d="%s"%s>%s</path>`, l.class, d.String(), dash, tip("%s", l.name))
		for i := range l.x {
			if l.err != nil && l.err[i] > 0 {
				s.add(`<path class="bar" d="M%.1f %.1fV%.1f"/>`, x.at(l.x[i]), y.at(l.y[i]-l.err[i]), y.at(l.y[i]+l.err[i]))
			}
			if dots || len(l.x) == 1 { // which no line shows
				s.add(`<circle class="dot" cx="%.1f" cy="%.1f" r="3.5">%s</circle>`, x.at(l.x[i]), y.at(l.y[i]), tip("%s: %s, %s", l.name, number(l.x[i]), number(l.y[i])))
			}
		}
		s.add("</g>")
	}
	return s.done("lines", label, height, marks)
}

// scatter draws points, with the line of least squares when there are enough to
// speak of one.
func scatter(label, xLabel, yLabel string, all []series) string {
	var xs, ys span
	var px, py []float64
	for _, l := range all {
		for i := range l.x {
			xs.add(l.x[i])
			ys.add(l.y[i])
		}
		px, py = append(px, l.x...), append(py, l.y...)
	}
	const height = 236
	x, y := xs.scale(44, plotWidth-10, false), ys.scale(height-40, 20, false)
	var s svg
	s.axes(x, y, xLabel, yLabel, nil)
	if r := correlation(px, py); len(px) >= 4 && r != 0 {
		mx, my := mean(px), mean(py)
		slope := r * deviation(py) / deviation(px)
		at := func(v float64) float64 { return min(max(my+slope*(v-mx), y.lo), y.hi) }
		s.add(`<path class="fit" d="M%.1f %.1fL%.1f %.1f"/>`, x.at(xs.lo), y.at(at(xs.lo)), x.at(xs.hi), y.at(at(xs.hi)))
		s.text(plotWidth-10, 11, "label end", fmt.Sprintf("r = %.2f, n = %d", r, len(px)))
	}
	marks := 0
	for _, l := range all {
		s.add(`<g class="%s">`, l.class)
		for i := range l.x {
			note := fmt.Sprintf("%s: %s, %s", l.name, number(l.x[i]), number(l.y[i]))
			if l.tips != nil {
				note = l.tips[i]
			}
			s.add(`<circle class="point" cx="%.1f" cy="%.1f" r="4">%s</circle>`, x.at(l.x[i]), y.at(l.y[i]), tip("%s", note))
			marks++
		}
		s.add("</g>")
	}
	return s.done("scatter", label, height, marks)
}

// row is one line of a dot plot or of bars.
type row struct {
	name, class string
	mean, std   float64
	values      []float64 // of the seeds
	best        bool
	parts       []float64 // of stacked bars
}

// dotPlot draws a mean with its deviation for each row, and the values behind
// it.
func dotPlot(label, xLabel string, rows []row) string {
	var xs span
	for _, r := range rows {
		xs.add(r.mean - r.std)
		xs.add(r.mean + r.std)
		for _, v := range r.values {
			xs.add(v)
		}
	}
	const step, top = 22, 8
	bottom := float64(top + step*len(rows))
	left := labelWidth(rows)
	x := xs.scale(left, plotWidth-62, false)
	var s svg
	s.below(x, top, bottom, xLabel)
	for i, r := range rows {
		y := float64(top+step*i) + step/2
		s.text(left-8, y+4, "name end", short(r.name, left))
		s.add(`<g class="%s">`, r.class)
		for _, v := range r.values {
			s.add(`<circle class="seed" cx="%.1f" cy="%.1f" r="3"/>`, x.at(v), y)
		}
		if r.std > 0 {
			s.add(`<path class="bar" d="M%.1f %.1fH%.1f"/>`, x.at(r.mean-r.std), y, x.at(r.mean+r.std))
		}
		s.add(`<circle class="dot" cx="%.1f" cy="%.1f" r="5">%s</circle></g>`, x.at(r.mean), y, tip("%s: %.2f ± %.2f, %d seeds", r.name, r.mean, r.std, len(r.values)))
		class := "value end"
		if r.best {
			class += " best"
		}
		s.text(plotWidth-4, y+4, class, fmt.Sprintf("%.2f", r.mean))
	}
	return s.done("dots", label, bottom+38, len(rows))
}

// bars draws stacked horizontal bars; classes colour the parts.
func bars(label, xLabel string, rows []row, names, classes []string) string {
	xs := span{}
	xs.add(0)
	for _, r := range rows {
		var sum float64
		for _, p := range r.parts {
			sum += p
		}
		xs.add(sum)
	}
	const step, top = 22, 8
	bottom := float64(top + step*len(rows))
	left := labelWidth(rows)
	x := xs.scale(left, plotWidth-48, false)
	var s svg
	s.below(x, top, bottom, xLabel)
	for i, r := range rows {
		y := float64(top + step*i)
		s.text(left-8, y+step/2+4, "name end", short(r.name, left))
		var sum float64
		for j, p := range r.parts {
			if p <= 0 {
				continue
			}
			s.add(`<rect class="%s fill" x="%.1f" y="%.1f" width="%.1f" height="%d" rx="2">%s</rect>`, classes[j], x.at(sum)+0.5, y+4, max(0.5, x.at(sum+p)-x.at(sum)-1), step-8,
				tip("%s, %s: %s", r.name, names[j], number(p)))
			sum += p
		}
		s.text(plotWidth-4, y+step/2+4, "value end", number(sum))
	}
	return s.done("bars", label, bottom+38, len(rows))
}

// labelWidth is the room for the rows' names, by a character's usual width.
func labelWidth(rows []row) float64 {
	longest := 0
	for _, r := range rows {
		longest = max(longest, len([]rune(r.name)))
	}
	return min(max(60, 6.2*float64(longest)+14), 150)
}

// short cuts a name that does not fit.
func short(name string, width float64) string {
	fits := int((width - 12) / 6)
	if r := []rune(name); len(r) > fits {
		return string(r[:max(1, fits-1)]) + "…"
	}
	return name
}

func mean(x []float64) (m float64) {
	for _, v := range x {
		m += v / float64(len(x))
	}
	return m
}

func deviation(x []float64) float64 {
	m, s := mean(x), 0.0
	for _, v := range x {
		s += (v - m) * (v - m)
	}
	return math.Sqrt(s)
}

// correlation is Pearson's, 0 where a side does not vary.
func correlation(x, y []float64) float64 {
	d := deviation(x) * deviation(y)
	if d == 0 {
		return 0
	}
	mx, my, s := mean(x), mean(y), 0.0
	for i := range x {
		s += (x[i] - mx) * (y[i] - my)
	}
	return s / d
}

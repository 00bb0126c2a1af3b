package report

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// Group is points of one kind in the panels of a sheet.
type Group struct {
	Name string
	X, Y []float64
}

// Panel is a scatter plot.
type Panel struct {
	X, Y   string // what the axes show
	Groups []Group
}

// sheetStyle is what a drawing needs of the page's style, in a file of its own:
// colours for light and dark, as the reader's system asks for.
const sheetStyle = `text{font:11px system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:#5d6068}.title{font-size:14px;font-weight:600;fill:#1c1d21}
.end{text-anchor:end}.mid{text-anchor:middle}.page{fill:#fff}.grid{stroke:#e4e4de}.axis{stroke:#8b8e96}.fit{stroke:#8b8e96;stroke-dasharray:4 4}
.grid,.axis,.fit{fill:none}.point{fill:currentColor;fill-opacity:.75}.g0{color:#2459c9}.g1{color:#d07706}.g2{color:#0c8a5f}.g3{color:#cf3030}.g4{color:#8440d6}
@media(prefers-color-scheme:dark){text{fill:#a3a7b1}.title{fill:#e9eaee}.page{fill:#1c1e24}.grid{stroke:#2f323a}.axis,.fit{stroke:#6d717c}
.g0{color:#78a6ff}.g1{color:#f7b24a}.g2{color:#3fcf98}.g3{color:#ff7d78}.g4{color:#bd92ff}}`

// WriteSheet draws panels, this many side by side, as one SVG file that needs no
// page. All panels have the same groups, five at most.
func WriteSheet(w io.Writer, title string, columns int, panels []Panel) error {
	const gap, top, panelHeight = 24, 56, 236
	rows := (len(panels) + columns - 1) / columns
	width := columns*(plotWidth+gap) + gap
	height := top + rows*(panelHeight+gap)
	var s svg
	s.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s"><style>%s</style>`,
		width, height, width, height, html.EscapeString(title), sheetStyle)
	s.add(`<rect class="page" width="%d" height="%d" rx="8"/>`, width, height)
	s.text(gap, 24, "title", title)
	at := float64(gap)
	for i, g := range panels[0].Groups {
		s.add(`<circle class="point g%d" cx="%.0f" cy="40" r="4"/>`, i, at+4)
		s.text(at+12, 44, "", g.Name)
		at += 28 + 6.2*float64(len([]rune(g.Name)))
	}
	for i, p := range panels {
		var all []series
		for j, g := range p.Groups {
			all = append(all, series{name: g.Name, class: fmt.Sprintf("g%d", j), x: g.X, y: g.Y})
		}
		plot := scatter(p.Y+" against "+p.X, p.X, p.Y, all)
		s.add(`%s`, strings.Replace(plot, "<svg ", fmt.Sprintf(`<svg x="%d" y="%d" width="%d" height="%d" `,
			gap+i%columns*(plotWidth+gap), top+i/columns*(panelHeight+gap), plotWidth, panelHeight), 1))
	}
	s.add("</svg>\n")
	_, err := io.WriteString(w, s.b.String())
	return err
}

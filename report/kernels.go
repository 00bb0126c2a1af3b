package report

import (
	"fmt"
	"html/template"
	"slices"

	"mlpfusion/experiment"
)

// heats draws the kernels of one seed of each spot, all in the original's
// colours.
func (v *view) heats() ([]figure, error) {
	var list []figure
	const most = 5 // methods shown of a spot: the nearest to the original
	q := experiment.Named("kernel-errors")
	for _, s := range v.spots() {
		groups := slices.DeleteFunc(v.at(s), func(g experiment.Group) bool { return g.Summary(q).N == 0 })
		slices.SortStableFunc(groups, func(a, b experiment.Group) int {
			x, y := a.Summary(q).Mean, b.Summary(q).Mean
			return map[bool]int{true: -1, false: 1}[x < y]
		})
		groups = groups[:min(len(groups), most)]
		for i, g := range groups {
			cell := g.Cells[0]
			original, own, err := v.kernels(cell)
			if err != nil {
				return nil, err
			}
			full := strongest(original)
			title := s.String() + ": "
			note := fmt.Sprintf("%s kernel over %d dev texts, seed %d; blue below 0, red above, full colour at %s.", cell.NTK.Kind, cell.NTK.Rows, cell.Seed, number(full))
			if i == 0 {
				picture, err := heat(title+"original", original, full)
				if err != nil {
					return nil, err
				}
				list = append(list, figure{Title: title + "original's kernel", Note: note, Plot: template.HTML(picture)})
			}
			picture, err := heat(title+g.Name, own, full)
			if err != nil {
				return nil, err
			}
			list = append(list, figure{Title: title + g.Name, Note: fmt.Sprintf("Error %.1f %%, centred alignment %.3f; colours as the original's.", 100*cell.NTK.Sum.Relative, cell.NTK.Sum.Alignment), Plot: template.HTML(picture)})
		}
	}
	return list, nil
}

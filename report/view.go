package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"mlpfusion/experiment"
)

// view is a comparison being drawn: every method keeps its colour throughout.
type view struct {
	*comparison
	groups  []experiment.Group
	classes map[string]string // by the group's name
}

func newView(c *comparison) *view {
	v := &view{comparison: c, groups: experiment.Groups(c.cells), classes: map[string]string{}}
	taken := map[string]bool{}
	spare := []string{"c9", "c10", "c11", "c3", "c4", "c6", "c7", "c8", "c2", "c5"}
	for _, g := range v.groups {
		if _, ok := v.classes[g.Name]; ok {
			continue
		}
		const colours = 12                    // of style.css
		class := fmt.Sprintf("c%d", g.Rank()) // a method's colour is the same on every page
		if g.Rank() >= colours || taken[class] {
			for _, s := range spare {
				if class = s; !taken[s] {
					break
				}
			}
		}
		taken[class] = true
		v.classes[g.Name] = class
	}
	return v
}

// spot is a task and a width: what one plot of methods is about.
type spot struct {
	task  string
	width int
}

// spots lists the tasks and widths, from wide to narrow.
func (v *view) spots() []spot {
	var list []spot
	for _, g := range v.groups {
		if s := (spot{g.Task, g.Width}); g.Width > 0 && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b spot) int { return cmp.Or(strings.Compare(a.task, b.task), b.width-a.width) })
	return list
}

// spotsOrTasks lists the tasks, at no width, where nothing was compressed.
func (v *view) spotsOrTasks() []spot {
	list := v.spots()
	if len(list) == 0 {
		for _, t := range v.tasks() {
			list = append(list, spot{t, 0})
		}
	}
	return list
}

func (s spot) String() string {
	if s.width == 0 {
		return s.task
	}
	return fmt.Sprintf("%s, c = %d", s.task, s.width)
}

// at lists the groups of a spot, the original's with them.
func (v *view) at(s spot) []experiment.Group {
	var list []experiment.Group
	for _, g := range v.groups {
		if g.Task == s.task && (g.Width == s.width || g.Width == 0) {
			list = append(list, g)
		}
	}
	return list
}

func (v *view) tasks() []string {
	var list []string
	for _, g := range v.groups {
		if !slices.Contains(list, g.Task) {
			list = append(list, g.Task)
		}
	}
	return list
}

func (v *view) metric(task string) string {
	for _, c := range v.cells {
		if c.Task == task {
			return c.Main
		}
	}
	return ""
}

// score is the quantity that is a task's main metric, and its axis' label.
func (v *view) score(task string) (q experiment.Quantity, label string) {
	name := v.metric(task)
	if q = experiment.ScoreOf(name); q.Unit == "" {
		return q, name
	}
	return q, name + ", " + q.Unit
}

func always(q experiment.Quantity) func(string) experiment.Quantity {
	return func(string) experiment.Quantity { return q }
}

func (v *view) legend(groups []experiment.Group) []legend {
	var list []legend
	for _, g := range groups {
		if l := (legend{g.Name, v.classes[g.Name]}); !slices.Contains(list, l) {
			list = append(list, l)
		}
	}
	return list
}

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"mlpfusion/checkpoint"
	"mlpfusion/convert"
	"mlpfusion/model"
)

// routers tells what a checkpoint's routers do with texts, beside the original's
// where that is given.
func (a *app) routers(dir, original *checkpoint.Dir, t *convert.Texts) ([]convert.RouterUse, error) {
	src, err := t.Open(dir)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(src.Blocks, func(b *model.Block) bool { return b.Experts > 0 }) {
		return nil, fmt.Errorf("%s: expected a model with mixtures of experts, found none", dir.Path)
	}
	var beside model.Parts
	if original != nil {
		if beside, err = t.Open(original); err != nil {
			return nil, err
		}
	}
	bar := a.ui.progress("routers", "batch", len(t.Batches))
	uses, err := convert.Routers(a.ctx, a.pool, src, beside, t.Batches, func(done, total int) { bar.set(done, total, "") })
	if err != nil {
		bar.stop()
		return nil, err
	}
	bar.end()
	return uses, nil
}

// showRouters prints the share of the choices that falls on each expert.
func showRouters(w io.Writer, uses []convert.RouterUse) {
	head := []string{"mixture", "choices", "dropped", "% of them by expert"}
	if uses[0].Original != nil {
		head = append(head, "as before")
	}
	var rows [][]string
	row := func(name string, u *model.Usage) []string {
		all := u.All()
		var shares []string
		for _, n := range u.Tokens {
			shares = append(shares, fmt.Sprintf("%.0f", percent(n, all)))
		}
		if most := 16; len(shares) > most {
			busiest := slices.Max(u.Tokens)
			idle := 0
			for _, n := range u.Tokens {
				if n == 0 {
					idle++
				}
			}
			shares = []string{fmt.Sprintf("busiest of %d %.1f, %d get none", len(shares), percent(busiest, all), idle)}
		}
		return []string{name, fmt.Sprint(all), fmt.Sprintf("%.1f %%", percent(u.Dropped, all)), strings.Join(shares, " ")}
	}
	for _, u := range uses {
		line := row(u.Name, &u.Usage)
		if u.Original != nil {
			rows = append(rows, append(row(u.Name+", original", u.Original), ""))
			same := "–" // where experts were dropped, the others have new numbers
			if len(u.Tokens) == len(u.Original.Tokens) {
				same = fmt.Sprintf("%.1f %%", percent(u.Same, u.All()))
			}
			line = append(line, same)
		}
		rows = append(rows, line)
	}
	table(w, head, rows)
}

func percent(n, all int64) float64 {
	if all == 0 {
		return 0
	}
	return 100 * float64(n) / float64(all)
}

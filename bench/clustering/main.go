// Command clustering draws the figures of docs/clustering.md from the table of
// cells in bench/results, one for each width:
//
//	go run ./bench/clustering
package main

import (
	"encoding/csv"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"mlpfusion/report"
)

func main() {
	log.SetFlags(0)
	table := flag.String("table", "bench/results/2026-11-24-amd-epyc-zen4-clustering.csv", "cells with what is known before and after fine-tuning")
	out := flag.String("out", "docs/figures", "folder for the figures")
	flag.Parse()
	if err := run(*table, *out); err != nil {
		log.Fatal(err)
	}
}

// quantity is a column of the table and what a panel calls it.
type quantity struct {
	column, label string
	scale         float64
}

var (
	before = []quantity{{"explained", "inertia explained, %", 100}, {"silhouette", "silhouette", 1}}
	after  = []quantity{{"output_error", "last layer's output error", 1}, {"kernel_error", "tangent kernel's error", 1}, {"accuracy", "accuracy after fine-tuning, %", 100}}
)

func run(table, out string) error {
	f, err := os.Open(table)
	if err != nil {
		return err
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return fmt.Errorf("%s: %w", table, err)
	}
	column := func(name string) int { return slices.Index(rows[0], name) }
	byWidth := map[string][][]string{}
	for _, r := range rows[1:] {
		w := r[column("width")]
		byWidth[w] = append(byWidth[w], r)
	}
	for width, rows := range byWidth {
		var panels []report.Panel
		for _, y := range after {
			for _, x := range before {
				p := report.Panel{X: x.label, Y: y.label}
				for _, r := range rows {
					name := r[column("clustering")]
					i := slices.IndexFunc(p.Groups, func(g report.Group) bool { return g.Name == name })
					if i < 0 {
						i = len(p.Groups)
						p.Groups = append(p.Groups, report.Group{Name: name})
					}
					g := &p.Groups[i]
					for _, v := range []struct {
						q  quantity
						to *[]float64
					}{{x, &g.X}, {y, &g.Y}} {
						n, err := strconv.ParseFloat(r[column(v.q.column)], 64)
						if err != nil {
							return fmt.Errorf("%s: %s: %w", table, v.q.column, err)
						}
						*v.to = append(*v.to, v.q.scale*n)
					}
				}
				panels = append(panels, p)
			}
		}
		to, err := os.Create(filepath.Join(out, "clustering-"+width+".svg"))
		if err != nil {
			return err
		}
		defer to.Close()
		if err := report.WriteSheet(to, "All blocks of MiniLM fused to "+width+" units: three seeds each", len(before), panels); err != nil {
			return err
		}
	}
	return nil
}

// Command calibrate measures how close each fusion method's block comes to the
// original's output on sentences it has not seen: the tables of
// docs/calibrated.md.
//
//	go run ./bench/calibrate -model DIR -data DIR/SST-2 [-shares 16] [-part budget]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"mlpfusion/bench/internal/results"
	"mlpfusion/fusion"
	"mlpfusion/kernel"
)

// way is a row of the table.
type way struct {
	name   string
	method string
	set    func(o *fusion.Options)
}

func refit(o *fusion.Options) { o.Refit = true }

var ways = []way{
	{"`fusion`", "fusion", func(*fusion.Options) {}},
	{"`fusion`, refit", "fusion", refit},
	{"`cluster`, refit", "cluster", refit},
	{"`sketch`, refit", "sketch", refit},
	{"`svd`, refit", "svd", refit},
	{"`mmd`, refit", "mmd", refit},
	{"`prune`, refit", "prune", refit},
	{"`magnitude`, refit", "magnitude", refit},
	{"weighted clustering, refit", "fusion", func(o *fusion.Options) { o.Weighted, o.Refit = true, true }},
	{"chosen units, refit", "fusion", func(o *fusion.Options) { o.Select, o.Refit = true, true }},
	{"weighted clustering, refit, fit", "fusion", func(o *fusion.Options) { o.Weighted, o.Refit, o.Fit = true, true, 300 }},
	{"`prune`, refit, fit", "prune", func(o *fusion.Options) { o.Refit, o.Fit = true, 300 }},
	{"`calibrated`", "calibrated", func(*fusion.Options) {}},
}

func main() {
	log.SetFlags(0)
	modelDir := flag.String("model", os.Getenv("MLPFUSION_MINILM"), "model folder, a BERT")
	dataDir := flag.String("data", "../shared/data/SST-2", "folder of SST-2")
	calib := flag.Int("calib", 1200, "calibration sentences")
	held := flag.Int("held", 300, "held-out sentences")
	shares := flag.String("shares", "4,16", "for errors: c = p_I divided by these")
	part := flag.String("part", "errors", "what to measure: errors (every method), budget (per-block widths), int8 (rounded weights)")
	out := flag.String("out", "", "also write the table to this file")
	flag.Parse()
	pool := kernel.NewPool(0)
	defer pool.Close()
	list, err := subjects(*modelDir, *dataDir, *calib, *held, pool)
	if err != nil {
		log.Fatal(err)
	}
	var to io.Writer = os.Stdout
	if *out != "" {
		f, err := os.Create(*out)
		if err != nil {
			log.Fatal(err)
		}
		defer f.Close()
		to = io.MultiWriter(os.Stdout, f)
	}
	errors := func(w io.Writer, list []subject, pool *kernel.Pool) error { return table(w, list, *shares, pool) }
	parts := map[string]func(io.Writer, []subject, *kernel.Pool) error{"errors": errors, "budget": budget, "int8": int8s}
	run, ok := parts[*part]
	if !ok {
		log.Fatalf("-part %s: expected errors, budget or int8", *part)
	}
	if err := run(to, list, pool); err != nil {
		log.Fatal(err)
	}
}

// table writes a row for each way and width: the relative output error of every
// block, their median, the median ratio to plain fusion, and seconds a block.
func table(w io.Writer, list []subject, shares string, pool *kernel.Pool) error {
	fmt.Fprintf(w, "%d calibration tokens, %d held-out tokens, %d workers\n", list[0].calib.len(), list[0].held.len(), pool.Workers())
	for _, text := range strings.Split(shares, ",") {
		share, err := strconv.Atoi(text)
		if err != nil || share < 1 {
			return fmt.Errorf("-shares: expected numbers of at least 1 such as 4,16, found %q", shares)
		}
		fmt.Fprintf(w, "\n| c = p_I/%d |", share)
		for i := range list {
			fmt.Fprintf(w, " block %d |", i)
		}
		fmt.Fprintf(w, " median | of `fusion` | seconds a block |\n|---|%s---|---|---|\n", strings.Repeat("---|", len(list)))
		var plain []float64
		for _, way := range ways {
			method, err := fusion.Lookup(way.method)
			if err != nil {
				return err
			}
			var errs, ratios []float64
			start := time.Now()
			for i, s := range list {
				o := fusion.Options{Width: s.mlp.Width / share, Seed: 1, Pool: pool, Inputs: s.calib}
				way.set(&o)
				b, err := method.Compress(context.Background(), s.mlp, o)
				if err != nil {
					return fmt.Errorf("block %d: %s: %w", i, way.name, err)
				}
				errs = append(errs, outputError(b, s, pool))
			}
			seconds := time.Since(start).Seconds() / float64(len(list))
			if plain == nil {
				plain = errs
			}
			fmt.Fprintf(w, "| %s |", way.name)
			for i, e := range errs {
				fmt.Fprintf(w, " %.4f |", e)
				ratios = append(ratios, e/plain[i])
			}
			fmt.Fprintf(w, " %.4f | %.2f | %.1f |\n", results.Median(errs), results.Median(ratios), seconds)
		}
	}
	return nil
}

// outputError is ‖ŷ − y‖/‖y‖ over the held-out tokens.
func outputError(b *fusion.Block, s subject, pool *kernel.Pool) float64 {
	want, got := make([]float32, len(s.held.x)), make([]float32, len(s.held.x))
	s.mlp.Forward(pool, s.held.x, s.held.len(), want)
	b.Forward(pool, s.held.x, s.held.len(), got)
	var e, size float64
	for i, y := range want {
		d := float64(got[i]) - float64(y)
		e += d * d
		size += float64(y) * float64(y)
	}
	return math.Sqrt(e / size)
}

package main

import (
	"context"
	"fmt"
	"io"

	"mlpfusion/fusion"
	"mlpfusion/kernel"
)

// compressAll compresses block i to widths[i] by calibrated and returns the
// relative output errors.
func compressAll(list []subject, widths []int, pool *kernel.Pool) (blocks []*fusion.Block, errs []float64, err error) {
	method, err := fusion.Lookup("calibrated")
	if err != nil {
		return nil, nil, err
	}
	for i, s := range list {
		b, err := method.Compress(context.Background(), s.mlp, fusion.Options{Width: widths[i], Seed: 1, Pool: pool, Inputs: s.calib})
		if err != nil {
			return nil, nil, err
		}
		blocks = append(blocks, b)
		errs = append(errs, outputError(b, s, pool))
	}
	return blocks, errs, nil
}

// budget compares one width for all blocks with widths chosen for the same
// parameters.
func budget(w io.Writer, list []subject, pool *kernel.Pool) error {
	var curves []fusion.Curve
	var widths []int
	full := list[0].mlp.Width
	for c := full / 32; c <= full; c += full / 32 {
		widths = append(widths, c)
	}
	for _, s := range list {
		c, err := s.mlp.Curve(context.Background(), fusion.Params, widths, fusion.Options{Pool: pool, Inputs: s.calib})
		if err != nil {
			return err
		}
		curves = append(curves, c)
	}
	fmt.Fprintf(w, "| budget | widths | error of each block | sum of squares |\n|---|---|---|---|\n")
	for _, share := range []int{2, 4, 16} {
		total := 0
		same := make([]int, len(list))
		for i, s := range list {
			same[i] = s.mlp.Width / share
			total += fusion.Params.At(s.mlp, same[i])
		}
		choice, err := fusion.Allocate(curves, total)
		if err != nil {
			return err
		}
		chosen := make([]int, len(list))
		for i, j := range choice {
			chosen[i] = widths[j]
		}
		for _, widths := range [][]int{same, chosen} {
			_, errs, err := compressAll(list, widths, pool)
			if err != nil {
				return err
			}
			var sum float64
			for _, e := range errs {
				sum += e * e
			}
			fmt.Fprintf(w, "| 1/%d | %d | %.3f | %.4f |\n", share, widths, errs, sum)
		}
	}
	return nil
}

// int8s compares blocks with their int8 rounding.
func int8s(w io.Writer, list []subject, pool *kernel.Pool) error {
	fmt.Fprintf(w, "| c | weights | error of each block |\n|---|---|---|\n")
	for _, share := range []int{4, 16} {
		widths := make([]int, len(list))
		for i, s := range list {
			widths[i] = s.mlp.Width / share
		}
		blocks, errs, err := compressAll(list, widths, pool)
		if err != nil {
			return err
		}
		var rounded []float64
		for i, b := range blocks {
			rounded = append(rounded, outputError(b.Int8(), list[i], pool))
		}
		fmt.Fprintf(w, "| p_I/%d | float32 | %.4f |\n| p_I/%d | int8 | %.4f |\n", share, errs, share, rounded)
	}
	return nil
}

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mlpfusion/convert"
	"mlpfusion/model"
	"mlpfusion/python"
)

func (a *app) exportCommand() *cobra.Command {
	var opt convert.ExportOptions
	var code bool
	c := &cobra.Command{
		Use:   "export MODEL OUT",
		Short: "Write a checkpoint that plain transformers loads",
		Long: `Write MODEL as a checkpoint that plain transformers loads with from_pretrained:
the cluster sizes P multiplied into the down projections, low-rank factors
multiplied out, one width for all blocks. What was written is opened again and
its logits are compared with MODEL's before it takes its place. An adapter of MODEL,
--adapter, is written beside it as OUT-adapter, with P where it then belongs.

Transformers has one intermediate size for all layers (of mixtures another for all
experts). Where the blocks differ,
--pad fills the narrower ones with dead units: the same function, and the units
stay dead in training, but nothing gets smaller or faster.

Llama and what has its shape can keep a width for each layer: --nemotron-nas writes it
as such a model, which llama.cpp and vLLM serve (docs/serving.md). That format knows
multiples of 256 alone, to which --pad then fills each block up. The code by which
transformers and vLLM read it goes along: trust_remote_code=True.

With --remote-code the blocks stay as they are, each with its width, its P, its
factors, and a file goes along by which transformers loads them exactly:
from_pretrained(OUT, trust_remote_code=True). It is the form to train further in
PyTorch (docs/pytorch.md).`,
		Example: `  mlpfusion export small plain
  mlpfusion export small plain --pad
  mlpfusion export SmolLM2-135M served --nemotron-nas --pad
  mlpfusion export small for-pytorch --remote-code`,
		Args: exactly("MODEL", "OUT"),
		RunE: func(_ *cobra.Command, args []string) error {
			if code && a.adapter != "" {
				return usageError{errors.New("adapter, remote-code: expected one of the two, found both: with its blocks as they are the model takes the adapter as it is")}
			}
			if code && (opt.Pad || opt.Nemotron) {
				return usageError{errors.New("remote-code: expected it alone, which leaves the blocks as they are, found --pad or --nemotron-nas too")}
			}
			if err := apart(args[1], args[0], a.adapter); err != nil {
				return err
			}
			dir, err := a.open(args[0])
			if err != nil {
				return err
			}
			defer dir.Close()
			if code {
				r, err := convert.WithCode(a.ctx, dir, args[1], opt.Overwrite)
				if err != nil {
					return err
				}
				return a.ui.result(r, func(w io.Writer) { showWithCode(w, args[1], r) })
			}
			cfg, err := model.ReadConfig(dir)
			if err != nil {
				return err
			}
			if opt.Adapter, err = a.openAdapter(); err != nil {
				return err
			}
			defer opt.Adapter.Close()
			if err := cfg.TakeHead(opt.Adapter); err != nil {
				return err
			}
			opt.Pool, opt.Sample, opt.Note = a.pool, sample(cfg, a.seed), a.ui.say
			r, err := convert.Export(a.ctx, dir, args[1], opt)
			if err != nil {
				return err
			}
			return a.ui.result(r, func(w io.Writer) { showExported(w, args[0], args[1], r, opt.Adapter != nil) })
		},
	}
	f := c.Flags()
	a.addAdapter(f)
	f.BoolVar(&opt.Pad, "pad", false, "fill narrower blocks with dead units")
	f.BoolVar(&opt.Nemotron, "nemotron-nas", false, "keep a width for each layer of a Llama, multiples of 256")
	f.BoolVar(&code, "remote-code", false, "keep every block as it is, with the file by which transformers loads it")
	f.BoolVar(&opt.Overwrite, "overwrite", false, "replace OUT when it is there")
	return c
}

// sample is a batch of random tokens, 16 sequences of different lengths; half as
// many tokens for the decoder of an encoder–decoder that writes text.
func sample(cfg *model.Config, seed uint64) *model.Input {
	rng := rand.New(rand.NewPCG(seed, 0))
	in := &model.Input{Offsets: []int32{0}}
	for i := range 16 {
		for range min(8+6*i, cfg.MaxLength()) {
			in.IDs = append(in.IDs, int32(rng.IntN(cfg.Vocab)))
		}
		in.Offsets = append(in.Offsets, int32(len(in.IDs)))
	}
	if cfg.TwoStacks() && cfg.Head == model.LanguageModel {
		for i, end := range in.Offsets {
			in.DecoderOffsets = append(in.DecoderOffsets, (end+int32(i))/2)
		}
		for range in.DecoderOffsets[len(in.DecoderOffsets)-1] {
			in.DecoderIDs = append(in.DecoderIDs, int32(rng.IntN(cfg.Vocab)))
		}
	}
	return in
}

func showExported(w io.Writer, from, out string, r *convert.Exported, adapter bool) {
	if adapter {
		fmt.Fprintf(w, "  %s: the adapter for it\n", convert.AdapterOf(out))
	}
	widths := widthsText(r.Widths)
	if r.LayerWidths != nil {
		widths = fmt.Sprintf("nemotron-nas, blocks of %d to %d units", slices.Min(r.LayerWidths), slices.Max(r.LayerWidths))
	}
	fmt.Fprintf(w, "  %s: %s; logits differ from the source's by at most %.1e\n", out, widths, r.Difference)
	fmt.Fprintf(w, "  %s parameters, %s before compression (%s); a file of %s, where %s has %s\n", significant(float64(r.Parameters)), significant(float64(r.OriginalParameters)),
		change(float64(r.OriginalParameters), float64(r.Parameters)), bytesText(r.Bytes), from, bytesText(r.SourceBytes))
	if r.ClusterSize > 0 {
		fmt.Fprintf(w, "  to train on elsewhere: P lies in the down projections now, which want %.3g times the others' learning rate (on average; --remote-code keeps P and is exact)\n", r.ClusterSize)
	}
}

// widthsText tells the widths of blocks by the keys of config.json that hold them.
func widthsText[N int | float64](widths map[string]N) string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(widths)) {
		if len(widths) == 1 {
			return fmt.Sprintf("every block has %v units", widths[key])
		}
		all = append(all, fmt.Sprintf("%s %v", key, widths[key]))
	}
	return strings.Join(all, ", ")
}

func showWithCode(w io.Writer, out string, r *convert.Exported) {
	fmt.Fprintf(w, "  %s: every block as it is, with %s: AutoModel….from_pretrained(%q, trust_remote_code=True)\n", out, python.ModelingFile, out)
	fmt.Fprintf(w, "  %s parameters, %s before compression (%s)\n", significant(float64(r.Parameters)), significant(float64(r.OriginalParameters)), change(float64(r.OriginalParameters), float64(r.Parameters)))
}

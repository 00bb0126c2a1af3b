package main

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/disk"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/ntk"
	"mlpfusion/task"
	"mlpfusion/train"
)

// ntkFlags say on which examples kernels are computed.
type ntkFlags struct {
	data  dataFlags
	split string
	rows  int
}

func (n *ntkFlags) add(f *pflag.FlagSet, split string, count int) {
	n.data.addTask(f)
	f.StringVar(&n.split, "split", split, "train or dev")
	f.IntVar(&n.rows, "rows", count, "examples; of a larger set a seeded sample, 0 for all")
}

func (a *app) ntkCommand() *cobra.Command {
	var flags ntkFlags
	var kind, blocks, save string
	c := &cobra.Command{
		Use:   "ntk MODEL FUSED",
		Short: "Compare a fused model's training dynamics and outputs with the original's",
		Long: `Compute the neural tangent kernels of MLP blocks of MODEL and of FUSED, which was
made from it, over examples of a task, and say how far they lie apart: the
Frobenius norm of the difference, absolute and relative to MODEL's kernel, and
the centred kernel alignment. FUSED is meant as fuse wrote it: fine-tuning moves
kernels too, which is said where it is found. The function is the probability of the first class
(or the output of a regression). Beside that, the difference of both models'
hidden states and logits.

A model without a classifier gets a new one, the same for both.`,
		Example: `  mlpfusion ntk MODEL small --task sst2 --data glue/SST-2
  mlpfusion ntk MODEL small --task sst2 --data glue/SST-2 --blocks 3 --kernel sgd --save kernels`,
		Args: exactly("MODEL", "FUSED"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.ntk(args[0], args[1], &flags, kind, blocks, save)
		},
	}
	f := c.Flags()
	flags.add(f, "dev", 872)
	f.StringVar(&kind, "kernel", "adam", "adam (asymmetric sign) or sgd")
	f.StringVar(&blocks, "blocks", "fused", "fused, all, or a block from 0")
	a.addAdapter(f)
	f.Lookup("adapter").Usage = "folder of an adapter that FUSED is taken with"
	f.StringVar(&save, "save", "", "write original.npy and fused.npy, the kernels summed over the blocks, to this directory")
	arrange(c,
		section{"Data", "task data rows split adapter"},
		section{"Kernels", "blocks kernel save"},
		columnSection,
		section{"Help", "help"})
	return c
}

// kernelReport is what the command ntk finds.
type kernelReport struct {
	Kernel   string           `json:"kernel"`
	Examples int              `json:"rows"`
	Blocks   []blockReport    `json:"blocks"`
	Sum      ntk.Difference   `json:"sum"`
	Output   *ntk.OutputError `json:"output"`
}

type blockReport struct {
	Block string `json:"block"`
	ntk.Difference
}

func (a *app) ntk(original, fused string, flags *ntkFlags, kindName, blockNames, save string) error {
	kind, err := ntk.ParseKind(kindName)
	if err != nil {
		return usageError{err}
	}
	pair, err := a.loadPair(original, fused, flags)
	if err != nil {
		return err
	}
	defer pair.fusedDir.Close()
	blocks, err := chooseBlocks(pair.fused, blockNames)
	if err != nil {
		return usageError{err}
	}
	for _, b := range blocks {
		if name := pair.fused.Blocks[b].Name; !isFused(pair.fused, b) {
			a.ui.say("%s: %s is not compressed: its kernel differs by what other blocks pass on to it", fused, name)
		}
	}
	if name := pair.trained(); name != "" {
		a.ui.say("%s: it was fine-tuned (%s is another than that of %s), so what differs is training's doing as well", fused, name, original)
	}
	in, err := pair.examples(a, flags.split, flags.rows)
	if err != nil {
		return err
	}
	report := &kernelReport{Kernel: kind.String(), Examples: len(in.Offsets) - 1}
	var kernels [2][]*ntk.Kernel
	for i, side := range []struct {
		name string
		m    *model.Model
	}{{"original", pair.original}, {"fused", pair.fused}} {
		report, done := a.blockProgress(side.name)
		kernels[i], err = ntk.Compute(a.ctx, a.pool, side.m, in, ntk.Options{Kind: kind, Blocks: blocks, Progress: report})
		done(err)
		if err != nil {
			return err
		}
	}
	for i, k := range kernels[0] {
		d, err := ntk.Compare(k, kernels[1][i])
		if err != nil {
			return err
		}
		report.Blocks = append(report.Blocks, blockReport{k.Block, d})
	}
	sums := [2]*ntk.Kernel{ntk.Sum(kernels[0]), ntk.Sum(kernels[1])}
	if report.Sum, err = ntk.Compare(sums[0], sums[1]); err != nil {
		return err
	}
	if report.Output, err = ntk.CompareOutputs(a.ctx, a.pool, pair.original, pair.fused, in); err != nil {
		return err
	}
	if save != "" {
		if err := saveKernels(save, sums); err != nil {
			return err
		}
	}
	return a.ui.result(report, func(w io.Writer) { showKernels(w, report) })
}

// blockProgress returns what Options.Progress wants, as one bar in hundredths,
// and what ends it.
func (a *app) blockProgress(name string) (set func(block string, done float64), end func(error)) {
	bar := a.ui.progress(name, "%", 100)
	set = func(block string, done float64) {
		if block == "" {
			block = "gradients"
		}
		bar.set(int(100*done), 100, block)
	}
	return set, func(err error) {
		if err != nil {
			bar.stop()
			return
		}
		bar.end()
	}
}

// pair is an original and the fused model made from it, with a task's data.
type pair struct {
	original, fused *model.Model
	fusedDir        *checkpoint.Dir
	path            string // of the original, for its tokenizer
	set             *task.Dataset
	maxLength       int
}

// loadPair loads both models for the task; the fused one's directory stays open.
func (a *app) loadPair(original, fused string, flags *ntkFlags) (*pair, error) {
	if flags.rows < 0 {
		return nil, usageError{fmt.Errorf("rows: expected at least 0, found %d", flags.rows)}
	}
	if flags.split != "train" && flags.split != "dev" {
		return nil, usageError{fmt.Errorf("split: expected train or dev, found %q", flags.split)}
	}
	set, err := a.load(&flags.data)
	if err != nil {
		return nil, err
	}
	p := &pair{set: set, maxLength: flags.data.length(set.Spec)}
	head := train.HeadFor(set.Spec)
	head.NewHead, head.Seed = true, a.seed
	for i, name := range []string{original, fused} {
		dir, err := a.open(name)
		if err != nil {
			return nil, err
		}
		var m *model.Model
		if i == 0 {
			m, _, err = model.Load(dir, head)
		} else {
			m, err = a.loadAdapted(dir, head)
		}
		if i == 0 || err != nil {
			dir.Close()
		}
		if err != nil {
			return nil, err
		}
		if i == 0 {
			p.original, p.path = m, dir.Path
		} else {
			p.fused, p.fusedDir = m, dir
		}
	}
	return p, nil
}

func isFused(m *model.Model, block int) bool {
	_, ok := m.Config.Blocks[m.Blocks[block].Name]
	return ok
}

// trained names a tensor outside the fused blocks that differs between the models; ""
// if there is none.
func (p *pair) trained() string {
	compressed := map[*nn.Weight]bool{}
	for i, b := range p.fused.Blocks {
		for _, l := range b.MLP.Linears() {
			compressed[l.W], compressed[l.B] = isFused(p.fused, i), isFused(p.fused, i)
		}
	}
	before := map[string][]float32{}
	for _, w := range p.original.Params {
		before[w.Name] = w.Data
	}
	for _, w := range p.fused.Params {
		if data, ok := before[w.Name]; ok && !compressed[w.Weight] && !slices.Equal(data, w.Data) {
			return w.Name
		}
	}
	return ""
}

// examples packs this many examples of a split, 0 for all.
func (p *pair) examples(a *app, split string, n int) (*model.Input, error) {
	ex := p.set.Dev
	if split == "train" {
		ex = p.set.Train
	}
	enc, err := a.encode(split, p.path, p.set.Spec, p.original.Config, ex, n, p.maxLength)
	if err != nil {
		return nil, err
	}
	rows := make([]int32, enc.Len())
	for i := range rows {
		rows[i] = int32(i)
	}
	var b task.Batch
	enc.Fill(&b, rows)
	in := train.InputOf(&b)
	return &in, nil
}

func chooseBlocks(m *model.Model, name string) ([]int, error) {
	switch name {
	case "fused":
		if list := ntk.Fused(m); list != nil {
			return list, nil
		}
		return nil, fmt.Errorf("blocks: expected a model with fused blocks, found none")
	case "all":
		return ntk.All(m), nil
	}
	layer, err := strconv.Atoi(name)
	if err != nil || layer < 0 || layer >= len(m.Blocks) {
		return nil, fmt.Errorf("blocks: expected fused, all or a layer from 0 to %d, found %q", len(m.Blocks)-1, name)
	}
	return []int{layer}, nil
}

func saveKernels(dir string, sums [2]*ntk.Kernel) error {
	if err := disk.MkdirAll(dir); err != nil {
		return err
	}
	for i, name := range []string{"original.npy", "fused.npy"} {
		var b bytes.Buffer
		if err := ntk.WriteNPY(&b, sums[i]); err != nil {
			return err
		}
		if err := checkpoint.WriteFileAtomic(filepath.Join(dir, name), b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func showKernels(w io.Writer, r *kernelReport) {
	fmt.Fprintf(w, "  %s kernel over %d examples\n\n", r.Kernel, r.Examples)
	rows := make([][]string, 0, len(r.Blocks)+1)
	add := func(name string, d ntk.Difference) {
		row := []string{name, significant(d.Norm), significant(d.Absolute), fmt.Sprintf("%.4f", d.Relative), fmt.Sprintf("%.4f", d.Alignment)}
		if d.Norm == 0 { // an expert that no example passes through
			row[3], row[4] = "–", "–"
		}
		rows = append(rows, row)
	}
	for _, b := range r.Blocks {
		add(b.Block, b.Difference)
	}
	if len(r.Blocks) > 1 {
		add("sum", r.Sum)
	}
	table(w, []string{"block", "original's norm", "difference", "relative", "alignment"}, rows)
	fmt.Fprintln(w)
	rows = nil
	for l, d := range r.Output.Hidden {
		rows = append(rows, []string{fmt.Sprint(l), fmt.Sprintf("%.4f", d), fmt.Sprintf("%.4f", r.Output.HiddenNorm[l])})
	}
	rows = append(rows, []string{"logits", fmt.Sprintf("%.4f", r.Output.Logits), fmt.Sprintf("%.4f", r.Output.LogitsNorm)})
	table(w, []string{"output of layer", "mean difference", "mean norm"}, rows)
}

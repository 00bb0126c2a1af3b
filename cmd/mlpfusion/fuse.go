package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mlpfusion/checkpoint"
	"mlpfusion/convert"
	"mlpfusion/fusion"
	"mlpfusion/internal/choice"
	"mlpfusion/kmeans"
	"mlpfusion/model"
	"mlpfusion/train"
)

func (a *app) fuseCommand() *cobra.Command {
	var opt convert.FuseOptions
	var clustering string
	var data dataFlags
	var calibrationRows int
	var budgetOf string
	var byUsage, merge bool
	var shard string
	var then distillation
	var c *cobra.Command
	c = &cobra.Command{
		Use:   "fuse MODEL OUT [FOLDER …]",
		Short: "Compress MLP blocks",
		Long: `Compress the MLP blocks of MODEL and write the result to the directory OUT.

Methods, and what becomes of a block's hidden units:

` + methodList(false) + `
The paper's own is fusion with --clustering kmeans --restarts 30.
Without --layers all layers are compressed, without --width or --ratio to a
quarter of their hidden units: what export then writes for plain transformers is
smaller, since transformers has one width for all blocks. The paper compresses
the last two thirds, --layers paper.

The methods ` + textMethods(false) + `, and the flags weighted, select, refit and fit
with any method, read unlabelled training texts of --task and --data.

Of mixtures of experts these methods compress each expert on its own. Others look
at all experts of a layer:

` + methodList(true) + `
With shared one set of --width units serves all experts. Merging leaves --experts of
them, by how the router uses them on the texts of --task and --data, and compresses those
where --width or --ratio is given; the router stays as it is. reap and dern drop the
others, and with them their rows of the router: there are fewer experts, which plain
transformers loads.

A --budget gives the experts of a layer one width. --by-usage divides it among experts by
the tokens they get on these texts.

With --distill the compressed model then learns MODEL's predictions of each next token, for
that many steps on texts of --task and --data; nothing but the blocks' weights moves. Both
models are in memory for that.

The weights are read a layer at a time, so MODEL may be larger than the memory; the
texts' states wait in temporary files (TMPDIR). Several machines share the work when
each is given a --shard i/n of the same command. They leave their blocks in the folder
OUT.fuse, one for all or one each; --merge, with these folders where they are not
OUT.fuse, then writes what one machine would have.`,
		Example: `  mlpfusion fuse MODEL small
  mlpfusion fuse MODEL small --layers 2-5 --width 384
  mlpfusion fuse MODEL small --ratio 0.25 --method svd
  mlpfusion fuse MODEL small --method calibrated --task sst2 --data glue/SST-2
  mlpfusion fuse llama small --method calibrated --distill 100 --task lm --data texts
  mlpfusion fuse MOE small --method shared --ratio 0.5
  mlpfusion fuse MOE small --method mc-smoe --experts 2 --task sst2 --data glue/SST-2
  mlpfusion fuse MOE small --method calibrated --apart --task sst2 --data glue/SST-2 --shard 1/2
  mlpfusion fuse MOE small --method calibrated --apart --task sst2 --data glue/SST-2 --shard 2/2
  mlpfusion fuse MOE small --merge`,
		Args: func(cmd *cobra.Command, args []string) error {
			if merge && len(args) > 2 {
				return nil
			}
			return exactly("MODEL", "OUT")(cmd, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if merge {
				return a.mergeShards(c.Flags(), args[0], args[1], args[2:], opt.Overwrite)
			}
			if shard != "" {
				var err error
				if opt.Shard, opt.Shards, err = parseShard(shard); err != nil {
					return err
				}
			}
			opt.Fusion.Seed, opt.Fusion.Clustering = a.seed, kmeans.Algorithm(clustering)
			method, err := checkFuse(c.Flags(), &opt, budgetOf, byUsage, then.steps > 0)
			if err != nil {
				return err
			}
			if err := apart(args[1], args[0]); err != nil {
				return err
			}
			dir, err := a.open(args[0])
			if err != nil {
				return err
			}
			defer dir.Close()
			opt.Name, opt.Threads = args[0], a.threads
			fuse := func(out string) (*convert.Fused, error) {
				return a.fuse(dir, out, &opt, method, &data, calibrationRows, byUsage)
			}
			if then.steps > 0 {
				then.original, then.out, then.data, then.resume, then.overwrite = args[0], args[1], data, opt.Resume, opt.Overwrite
				return a.fuseAndDistill(&then, fuse)
			}
			result, err := fuse(args[1])
			if err != nil {
				return err
			}
			return a.ui.result(result, func(w io.Writer) { showFused(w, args[1], result) })
		},
	}
	f := c.Flags()
	f.StringVar(&opt.Method, "method", "fusion", "how to compress: one of the methods above")
	f.IntVar(&opt.Fusion.Experts, "experts", 0, "experts that merging leaves in each mixture (default a quarter)")
	f.BoolVar(&byUsage, "by-usage", false, "divide the budget among experts by the tokens they get on the texts of --task and --data")
	f.StringVar(&opt.Layers, "layers", "", "layers from 0, such as 2-5 or 0,3,7-9; all; or paper, the last two thirds (default all)")
	f.IntVar(&opt.Width, "width", 0, "hidden units to keep in each block")
	f.Float64Var(&opt.Ratio, "ratio", 0, "share of the hidden units to keep; of Llama and its like a multiple of 64 (default 0.25)")
	f.Float64Var(&opt.Budget, "budget", 0, "instead of one width: the share of the chosen blocks' cost to spend, widths by each block's error curve")
	f.StringVar(&budgetOf, "budget-of", "flops", "what the budget counts: flops, params or bytes")
	f.StringVar(&opt.Store, "store", "", "keep the blocks' matrices as f32, bf16 or int8 (default as MODEL does)")
	f.StringVar(&clustering, "clustering", "", "kmeans (the paper's), ward or best (default best)")
	f.IntVar(&opt.Fusion.Restarts, "restarts", 0, "runs of kmeans, the best is kept (default 30, the paper's)")
	f.IntVar(&opt.Fusion.Effort, "effort", 0, "work of the clustering best: 1 (default) to 10 or more")
	f.BoolVar(&opt.Fusion.Balance, "balance", false, "make P each unit's share of the output in place of cluster sizes")
	f.BoolVar(&opt.Fusion.Weighted, "weighted", false, "cluster by what units do on the texts of --task and --data")
	f.BoolVar(&opt.Fusion.Select, "select", false, "cluster around the units that matter most on these texts")
	f.BoolVar(&opt.Fusion.Refit, "refit", false, "fit the down projections to the original's outputs on these texts")
	f.Float64Var(&opt.Fusion.Ridge, "ridge", 0, "ridge of the refit, relative to the features' variance (default 1e-4)")
	f.IntVar(&opt.Fusion.Fit, "fit", 0, "steps of descent on the output error after the refit")
	f.IntVar(&then.steps, "distill", 0, "then this many steps of training of the blocks on MODEL's predictions (default 0; language models)")
	f.IntVar(&calibrationRows, "calibration-rows", 1200, calibrationRowsHelp)
	f.BoolVar(&opt.Apart, "apart", false, "fit each block to the original's states, not to what those before it left; experts always are")
	data.addTask(f)
	f.StringVar(&shard, "shard", "", "make the i-th of n shares of the blocks, as i/n; 0/n is n/n")
	f.BoolVar(&merge, "merge", false, "write OUT from the blocks that the shards have made")
	f.BoolVar(&opt.Resume, "resume", false, "go on with an interrupted run")
	f.BoolVar(&opt.Overwrite, "overwrite", false, "replace OUT when it is there")
	arrange(c,
		section{"What is compressed, and how", "layers method experts"},
		section{"To what size", "ratio width budget budget-of by-usage store"},
		section{"Clustering and P", "clustering restarts effort balance"},
		section{"Fitting to texts", "task data calibration-rows weighted select refit ridge fit apart distill"},
		columnSection,
		section{"The run", "shard merge overwrite resume help"})
	return c
}

// fuse compresses the blocks of the model in dir and writes it to out.
func (a *app) fuse(dir *checkpoint.Dir, out string, opt *convert.FuseOptions, method *fusion.Method, data *dataFlags, rows int, byUsage bool) (*convert.Fused, error) {
	// A few matrices are all the heap: collecting them often costs nothing
	// and keeps memory to what a block needs.
	defer debug.SetGCPercent(debug.SetGCPercent(25))
	if byUsage || method.UsesTexts(opt.Fusion) {
		texts, err := a.calibrationTexts(dir, data, rows)
		if err != nil {
			return nil, err
		}
		done, err := opt.Calibrate(a.ctx, a.pool, dir, texts, byUsage)
		if err != nil {
			return nil, err
		}
		defer done()
	}
	a.kept, a.resume = filepath.Clean(out)+convert.WorkSuffix, "--resume"
	about, err := foresee(dir, opt, method)
	if err != nil {
		return nil, err
	}
	for _, text := range about {
		a.ui.say("%s", text)
	}
	all, finished := a.ui.progress("blocks", "block", 0), 0
	opt.Progress = func(s convert.Step) {
		if s.Done {
			finished++
		}
		all.set(finished, s.Of, fuseNote(s, all.seconds()))
	}
	result, err := convert.Fuse(a.ctx, dir, out, *opt)
	if err != nil {
		all.stop()
		return nil, err
	}
	all.end()
	return result, nil
}

// checkFuse refuses flags that are out of range, and those that would change
// nothing.
func checkFuse(f *pflag.FlagSet, opt *convert.FuseOptions, budgetOf string, byUsage, distills bool) (*fusion.Method, error) {
	method, err := fusion.Lookup(opt.Method)
	if err != nil {
		return nil, usageError{fmt.Errorf("method: %w", choice.Unknown(opt.Method, fusion.Names(nil)))}
	}
	if !slices.Contains([]kmeans.Algorithm{"", kmeans.AlgorithmKMeans, kmeans.AlgorithmWard, kmeans.AlgorithmBest}, opt.Fusion.Clustering) {
		return nil, usageError{fmt.Errorf("clustering: expected kmeans, ward or best, found %q", opt.Fusion.Clustering)}
	}
	var ok bool
	opt.BudgetOf, ok = map[string]fusion.Cost{"flops": fusion.FLOPs, "params": fusion.Params, "bytes": fusion.Bytes}[budgetOf]
	if !ok {
		return nil, usageError{fmt.Errorf("budget-of: expected flops, params or bytes, found %q", budgetOf)}
	}
	if f.Changed("store") && !slices.Contains([]string{"f32", "bf16", "int8"}, opt.Store) {
		return nil, usageError{fmt.Errorf("store: expected f32, bf16 or int8, found %q", opt.Store)}
	}
	if f.Changed("layers") && opt.Layers == "" {
		return nil, usageError{errors.New("layers: expected numbers such as 2-5, all or paper, found none")}
	}
	if f.Changed("budget") && !(opt.Budget > 0 && opt.Budget <= 1) {
		return nil, usageError{fmt.Errorf("budget: expected a number above 0 and at most 1, found %g", opt.Budget)}
	}
	if err := cmp.Or(atLeast(f, 1, "width", "restarts", "effort", "experts"), atLeast(f, 0, "fit", "calibration-rows", "distill"), above0(f, "ratio", "ridge")); err != nil {
		return nil, err
	}
	sizes := 0
	for _, name := range []string{"width", "ratio", "budget"} {
		if f.Changed(name) {
			sizes++
		}
	}
	if sizes > 1 {
		return nil, usageError{fmt.Errorf("expected one of --width, --ratio and --budget, found %d of them", sizes)}
	}
	if byUsage && opt.Budget == 0 {
		return nil, usageError{errors.New("by-usage: expected a --budget to divide, found none")}
	}
	if err := method.Check(opt.Fusion); err != nil {
		return nil, usageError{err}
	}
	calibrates := byUsage || method.UsesTexts(opt.Fusion)
	reads := calibrates || distills
	texts := "a method or flags that read texts: " + textMethods(true) + ", --weighted, --select, --refit, --fit, --by-usage"
	return method, onlyWith(f, []condition{
		{"budget-of", opt.Budget != 0, "--budget"},
		{"task", reads, texts + ", --distill"}, {"data", reads, texts + ", --distill"},
		{"calibration-rows", calibrates, texts}, {"apart", calibrates, texts},
		{"shard", !distills, "blocks that are all made by one command, not with --distill"},
		{"store", !distills, "blocks that no training follows, not with --distill"},
	})
}

// mergeShards writes OUT from what shards have left.
func (a *app) mergeShards(f *pflag.FlagSet, from, out string, folders []string, overwrite bool) error {
	var err error
	f.Visit(func(flag *pflag.Flag) {
		if !slices.Contains([]string{"merge", "overwrite", "json", "quiet", "threads"}, flag.Name) {
			err = usageError{fmt.Errorf("merge: expected no flag beside it but --overwrite, for the shards' folders say the rest, found --%s", flag.Name)}
		}
	})
	if err := cmp.Or(err, apart(out, from)); err != nil {
		return err
	}
	dir, err := a.open(from)
	if err != nil {
		return err
	}
	defer dir.Close()
	result, err := convert.Merge(a.ctx, dir, out, folders, overwrite)
	if err != nil {
		return err
	}
	return a.ui.result(result, func(w io.Writer) { showFused(w, out, result) })
}

// foresee says what there is to know before the work: that a method does not suit the
// blocks, and what export will make of the result.
func foresee(dir *checkpoint.Dir, opt *convert.FuseOptions, method *fusion.Method) ([]string, error) {
	cfg, err := model.ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	_, blocks, err := model.Describe(cfg)
	if err != nil {
		return nil, err
	}
	plan := opt.Plan
	plan.Together = method.Mixtures && !method.Merges
	widths, err := plan.Choose(blocks)
	if err != nil {
		return nil, err
	}
	var about []string
	if method.Clusters && !method.Mixtures && !method.UsesTexts(opt.Fusion) && slices.ContainsFunc(blocks, func(b *model.Block) bool { return b.Gated() }) {
		better := fusion.Names(func(m *fusion.Method) bool {
			return m.Clusters && !m.Mixtures && m.UsesTexts(fusion.Options{})
		})
		about = append(about, fmt.Sprintf("%s averages gated units by their weights alone, after which a language model is of little use: --method %s with --task and --data chooses and fits them on texts",
			method.Name, strings.Join(better, " or ")))
	}
	return append(about, exportable(opt, method, cfg.Type, blocks, widths)), nil
}

// exportable says what export will make of the model that is asked for, of a family.
func exportable(opt *convert.FuseOptions, method *fusion.Method, family string, blocks []*model.Block, widths map[int]int) string {
	other := ""
	if family == "llama" {
		other = "; as --nemotron-nas it can stay smaller"
	}
	left, several := map[string]float64{}, false // by the key of config.json that holds it
	for i, b := range blocks {
		w, chosen := widths[i]
		if !chosen {
			w = b.Width
		}
		part := float64(w) / float64(b.WidthTimes)
		if was, ok := left[b.WidthKey]; ok && was != part {
			several = true
		}
		left[b.WidthKey] = part
	}
	switch {
	case method.Drops:
		return fmt.Sprintf("plain transformers loads what %s leaves: config.json has the number of experts that stay", method.Name)
	case method.Mixtures:
		return fmt.Sprintf("plain transformers knows no experts of %s: exported, each has matrices of its own again", method.Name)
	case !method.Units:
		return fmt.Sprintf("%s leaves no fewer units: exported for plain transformers, blocks are as large as before", method.Name)
	case family == model.NemotronNAS:
		return fmt.Sprintf("can be exported as nemotron-nas again: a width for each block, where needed filled up to a multiple of %d with --pad", model.NemotronMultiple)
	case opt.Budget > 0:
		return "a budget gives blocks different widths: plain transformers has one, so export will need --pad and make nothing smaller" + other
	case several:
		return fmt.Sprintf("%d of %d blocks are compressed: plain transformers has one width for all, so export will need --pad and make nothing smaller; --layers all would%s", len(widths), len(blocks), other)
	}
	return "can be exported as what plain transformers loads: " + widthsText(left)
}

// methodList is a line for each method, of those for mixtures or the others.
func methodList(mixtures bool) string {
	var b strings.Builder
	for _, m := range fusion.Methods() {
		if m.Mixtures == mixtures {
			fmt.Fprintf(&b, "  %-11s %s\n", m.Name, m.About)
		}
	}
	return b.String()
}

// textMethods names the methods that read texts, those for mixtures too if asked for.
func textMethods(mixtures bool) string {
	return strings.Join(fusion.Names(func(m *fusion.Method) bool {
		return m.UsesTexts(fusion.Options{}) && (mixtures || !m.Mixtures)
	}), ", ")
}

// calibrationTexts prepares the first training texts of a shuffle.
func (a *app) calibrationTexts(dir *checkpoint.Dir, data *dataFlags, rows int) (*convert.Texts, error) {
	set, err := a.load(data)
	if err != nil {
		return nil, err
	}
	cfg, err := model.ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	enc, err := a.encode("calibration", dir.Path, set.Spec, cfg, set.Train, data.calibrationRows(set.Spec, rows), data.length(set.Spec))
	if err != nil {
		return nil, err
	}
	return &convert.Texts{Name: fmt.Sprintf("%d rows of %s", enc.Len(), data.task), Head: train.HeadFor(set.Spec), Batches: train.Batches(enc)}, nil
}

// fuseNote says where compressing is, and how fast weights and texts pass through: the
// mean since the beginning, a token counting once for each layer.
func fuseNote(s convert.Step, seconds float64) string {
	note := s.Block
	if s.Batches > 0 && s.Batch < s.Batches {
		note = fmt.Sprintf("texts %d of %d", s.Batch, s.Batches)
	}
	if seconds > 0 && s.Read > 0 {
		note += fmt.Sprintf(", %s of weights/s", bytesText(int64(float64(s.Read)/seconds)))
	}
	if seconds > 0 && s.Tokens > 0 {
		note += fmt.Sprintf(", %s tokens/s", significant(float64(s.Tokens)/seconds))
	}
	return note
}

func showFused(w io.Writer, out string, r *convert.Fused) {
	var rows [][]string
	experts := map[string]int{} // of each mixture, how many alike its last row stands for
	for _, n := range r.Blocks {
		l := r.Layers[n]
		row := []string{n, l.Method, fmt.Sprint(l.Original), widthText(l), explained(l)}
		mixture, _, ok := strings.Cut(n, ".experts.")
		if !ok {
			rows = append(rows, row)
			continue
		}
		if k := len(rows) - 1; k >= 0 && experts[mixture] > 0 && slices.Equal(rows[k][1:4], row[1:4]) {
			// Experts that came out alike are one row, with the inertia of the first.
			experts[mixture]++
			rows[k][0] = fmt.Sprintf("%s, %d experts", mixture, experts[mixture])
			continue
		}
		experts[mixture] = 1
		rows = append(rows, row)
	}
	table(w, []string{"block", "method", "from", "to", "inertia explained"}, rows)
	if untaught := r.Untaught(); len(untaught) > 0 {
		most := untaught[:min(8, len(untaught))]
		if n := len(untaught) - len(most); n > 0 {
			most = append(slices.Clone(most), fmt.Sprintf("and %d more", n))
		}
		fmt.Fprintf(w, "\n  no text came to %s, compressed by weights alone: %s\n", count(len(untaught), "expert"), strings.Join(most, ", "))
	}
	if r.Shard != "" {
		fmt.Fprintf(w, "\n  the blocks are in %s; fuse --merge writes the model when all shards are made\n", r.Shard)
		return
	}
	fmt.Fprintf(w, "\n  %s: %s of weights, %s before (%s)\n", out, bytesText(r.Bytes), bytesText(r.SourceBytes), change(float64(r.SourceBytes), float64(r.Bytes)))
}

func widthText(l checkpoint.Layer) string {
	switch {
	case l.Rank > 0:
		return fmt.Sprintf("rank %d", l.Rank)
	case l.Weights != "":
		_, expert, _ := strings.Cut(l.Weights, ".experts.")
		return fmt.Sprintf("%d of %s", l.Width, expert)
	}
	return fmt.Sprint(l.Width)
}

func explained(l checkpoint.Layer) string {
	if l.Total == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100*(1-l.Inertia/l.Total))
}

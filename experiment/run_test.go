package experiment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/kernel"
	"mlpfusion/task"
)

// tiny makes a model of model/testdata with a vocabulary, and a data set in
// GLUE's form whose first word tells the label.
func tiny(t testing.TB) (model, data string) {
	t.Helper()
	model, data = filepath.Join(t.TempDir(), "bert"), t.TempDir()
	words := []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "fine", "poor", "film", "plot", "."}
	for c := 'a'; c <= 'z'; c++ {
		words = append(words, string(c))
	}
	write(t, filepath.Join(model, "vocab.txt"), strings.Join(words, "\n")+"\n")
	for _, f := range []string{"config.json", "model.safetensors"} {
		text, err := os.ReadFile(filepath.Join("../model/testdata/bert", f))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(model, f), string(text))
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for name, rows := range map[string]int{"train": 40, "dev": 20} {
		text := "sentence\tlabel\n"
		for i := range rows {
			text += fmt.Sprintf("%s film %c .\t%d\n", []string{"bad", "poor", "good", "fine"}[2*(i%2)+rng.IntN(2)], 'a'+rng.IntN(26), i%2)
		}
		write(t, filepath.Join(data, "SST-2", name+".tsv"), text)
	}
	return model, data
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

// tinyRunner compares all kinds of cells: every form of a block, calibrated and
// not, with fitted steps, tuned, and with P in two ways.
func tinyRunner(t testing.TB, model, data, out string) *Runner {
	t.Helper()
	c := Defaults()
	c.Methods = []string{"none", "fusion", "fusion+steps=0.1", "svd", "prune+refit", "magnitude"}
	c.Tasks, c.Widths, c.Seeds, c.LRs = []string{"sst2"}, []int{16}, []uint64{1, 2}, []float64{1e-3}
	c.PModes, c.Tune = []string{Keep, Identity}, []int{0, 1}
	c.Layers = "paper"
	c.Model, c.Data, c.Epochs, c.Batch, c.TrainRows, c.NTKRows, c.OutputRows, c.CalibrationRows, c.StepRows = model, data, 1, 8, 32, 6, 8, 16, 8
	dir, err := checkpoint.OpenDir(model)
	if err != nil {
		t.Fatal(err)
	}
	pool := kernel.NewPool(2)
	t.Cleanup(func() { dir.Close(); pool.Close() })
	return &Runner{Config: c, Source: dir, Dir: out, Pool: pool, Threads: 2}
}

// text is a comparison's cells without what was measured in time and memory.
func text(t testing.TB, dir string) string {
	t.Helper()
	_, cells, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cells {
		c.Seconds, c.SecondsPerStep, c.TokensPerSecond, c.PeakMemory = Seconds{}, 0, 0, 0
		if c.NTK != nil {
			c.NTK.Original = "" // shards have their own
		}
	}
	b, err := json.MarshalIndent(cells, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestRun makes a comparison, one that is stopped again and again and goes on,
// and one in two shards: the same cells.
func TestRun(t *testing.T) {
	model, data := tiny(t)
	whole := t.TempDir()
	cells, err := tinyRunner(t, model, data, whole).Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	// fusion and its steps: 2 modes of P × tuned or not; the three others: tuned
	// or not; the original once; each with 2 seeds.
	if want := 2 * (2*4 + 3*2 + 1); len(cells) != want {
		t.Fatalf("%d cells, want %d", len(cells), want)
	}
	for _, c := range cells {
		check(t, whole, c)
	}
	if left, err := filepath.Glob(filepath.Join(whole, "runs", "*")); err != nil || len(left) > 0 {
		t.Errorf("training folders were left: %v %v", left, err)
	}
	want := text(t, whole)

	stopped := t.TempDir()
	for _, at := range []int{1, 4, 30, 90, 0} {
		r := tinyRunner(t, model, data, stopped)
		ctx, cancel := context.WithCancel(context.Background())
		events := 0
		r.Observer.Stage = func(string, string, int, int, string) {
			if events++; events == at {
				cancel()
			}
		}
		_, err := r.Run(ctx)
		cancel()
		if at > 0 != errors.Is(err, context.Canceled) {
			t.Fatalf("stopped at event %d: %v", at, err)
		}
	}
	if got := text(t, stopped); got != want {
		t.Error("the comparison that was stopped has other cells")
	}

	shards := t.TempDir()
	for i := range 2 {
		r := tinyRunner(t, model, data, shards)
		r.Shard, r.Shards = i+1, 2
		part, err := r.Run(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if len(part) == 0 || len(part) == len(cells) {
			t.Errorf("shard %d has %d cells", i+1, len(part))
		}
	}
	if text(t, shards) != want {
		t.Error("the comparison in shards has other cells")
	}

	// Going on with other settings would mix what cannot be compared.
	r := tinyRunner(t, model, data, whole)
	r.Config.Epochs = 2
	if _, err := r.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "expected the settings") {
		t.Errorf("other settings gave %v", err)
	}
	// Another axis goes on with the cells that are there.
	r = tinyRunner(t, model, data, whole)
	r.Config.Seeds = []uint64{1, 2, 3}
	keys, done, err := r.Plan()
	if err != nil || len(keys) != 3*len(cells)/2 || len(done) != len(cells) {
		t.Errorf("with another seed: %d cells, %d done, %v", len(keys), len(done), err)
	}
	if each, measured, err := r.Estimate(context.Background(), done, keys[len(cells):]); err != nil || !measured || len(each) != len(cells)/2 {
		t.Errorf("estimates %v, measured %t, %v", each, measured, err)
	}
	if each, measured, err := r.Estimate(context.Background(), nil, keys[:1]); err != nil || measured || !(each[0] > 0) {
		t.Errorf("estimates without cells %v, measured %t, %v", each, measured, err)
	}
}

func check(t *testing.T, dir string, c *Cell) {
	t.Helper()
	if c.Main != "accuracy" || !(c.Value() >= 0 && c.Value() <= 1) || len(c.Points) == 0 || c.Examples != 32 || c.DevExamples != 20 || c.Parameters == 0 {
		t.Errorf("%s: %+v", c.Key, c)
	}
	if (len(c.Tuning) > 0) != (c.Tune > 0) {
		t.Errorf("%s: %d points of tuning", c.Key, len(c.Tuning))
	}
	if c.Method == original {
		return
	}
	if c.FLOPs >= c.OriginalFLOPs && c.Method != "magnitude" || len(c.Blocks) != 2 {
		t.Errorf("%s: FLOPs %d of %d, blocks %v", c.Key, c.FLOPs, c.OriginalFLOPs, c.Blocks)
	}
	if strings.HasPrefix(c.Method, "fusion") {
		for _, b := range c.Blocks {
			sum := 0
			for _, n := range b.Sizes {
				sum += n
			}
			if !(b.Inertia > 0) || !(b.Inertia < b.Total) || sum != 64 || !(b.Silhouette >= -1) || !(b.Silhouette <= 1) {
				t.Errorf("%s: %+v", c.Key, b)
			}
		}
	}
	if o := c.Output; o == nil || len(o.Hidden) != 3 || o.Hidden[0] != 0 || !(o.Relative() > 0) {
		t.Errorf("%s: output error %+v", c.Key, o)
	}
	if c.NTK == nil || len(c.NTK.Blocks) != 2 || !(c.NTK.Sum.Relative > 0) || c.NTK.Rows != 6 {
		t.Fatalf("%s: kernels %+v", c.Key, c.NTK)
	}
	a, err := ReadKernel(filepath.Join(dir, c.NTK.Original))
	if err != nil {
		t.Fatal(err)
	}
	b, err := ReadKernel(filepath.Join(dir, c.NTK.Kernel))
	if err != nil {
		t.Fatal(err)
	}
	if d, err := compare(a, b); err != nil || !(math.Abs(d.Relative-c.NTK.Sum.Relative) <= 1e-12) {
		t.Errorf("%s: the saved kernels differ by %g (%v), the cell says %g", c.Key, d.Relative, err, c.NTK.Sum.Relative)
	}
}

// TestCloser checks on the tiny model that tuning brings the output closer and
// fitted steps the kernel.
func TestCloser(t *testing.T) {
	model, data := tiny(t)
	r := tinyRunner(t, model, data, t.TempDir())
	r.Config.Methods, r.Config.PModes, r.Config.Seeds = []string{"fusion", "fusion+steps"}, []string{Keep}, []uint64{1}
	r.Config.Tune = []int{0, 3}
	cells, err := r.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	of := map[string]*Cell{}
	for _, c := range cells {
		of[fmt.Sprint(c.Method, c.Tune)] = c
	}
	if a, b := of["fusion0"].Output.Relative(), of["fusion3"].Output.Relative(); !(b < a) {
		t.Errorf("three epochs of tuning took the output error from %g to %g", a, b)
	}
	if a, b := of["fusion0"].NTK.Sum.Relative, of["fusion+steps0"].NTK.Sum.Relative; !(b < a) {
		t.Errorf("fitted steps took the kernel's error from %g to %g", a, b)
	}
}

// TestDistilled: cells with a teacher start from the same compressed model and
// learn something else; the teacher is trained once, as the original's cell is;
// with int8 every cell has a second score, of weights that lie near.
func TestDistilled(t *testing.T) {
	model, data := tiny(t)
	r := tinyRunner(t, model, data, t.TempDir())
	r.Config.Methods, r.Config.PModes, r.Config.Tune, r.Config.Seeds = []string{"none", "fusion", "fusion+distill", "fusion+distill=1"}, []string{Keep}, []int{0}, []uint64{1}
	r.Config.NTKRows, r.Config.Int8 = 0, true
	trained := 0
	r.Observer.Stage = func(stage, unit string, _, _ int, _ string) {
		if stage == "teacher" && unit == "step" {
			trained++
		}
	}
	cells, err := r.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if trained != 4 { // steps of 8 of 32 rows
		t.Errorf("the teacher took %d steps, want 4", trained)
	}
	losses := map[float64]bool{}
	for _, c := range cells {
		if len(c.Int8) == 0 || c.Int8[0].Name != c.Metrics[0].Name {
			t.Errorf("%s: int8 scores %v beside %v", c.Key, c.Int8, c.Metrics)
		}
		losses[c.Points[len(c.Points)-1].Loss] = true
	}
	if len(losses) != len(cells) {
		t.Errorf("%d different last losses in %d cells", len(losses), len(cells))
	}
	if tables := Tables(cells); len(tables) != 3 || tables[1].Name != "int8-scores" || len(tables[1].Rows) != 4 {
		t.Errorf("tables %+v", tables)
	}
}

func TestConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	write(t, path, "methods: [none, svd]\ntasks: [sst2]\nwidths: [16]\nlayers: all\nmodel: m\ndata: d\n")
	c := Defaults()
	if err := c.ReadConfig(path); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	if len(c.Cells()) != 6 || c.Layers != "all" || c.Epochs != 3 {
		t.Errorf("read %+v", c)
	}
	other := Defaults()
	other.Epochs, other.Widths, other.Layers = 7, []int{1, 2}, "x"
	c.Override(&other, func(key string) bool { return key == "epochs" || key == "widths" })
	if c.Epochs != 7 || len(c.Widths) != 2 || c.Layers != "all" {
		t.Errorf("overridden to %+v", c)
	}
	for _, bad := range []struct{ text, want string }{
		{"methods: [none]\nwidth: [16]\n", `line 2: expected one of methods, .*, found "width": did you mean widths\?`},
		{"{widths: [16], methods: [none], epoch: 2}", `line 1: .*found "epoch": did you mean epochs\?`},
		{"- none\n", "line 1: expected keys such as methods and tasks, found a list"},
		{"methods: [none]\nmethods: [fusion]\n", "line 2: expected the key methods once, found it in line 1 too"},
		{"methods: [none]\nseeds: [one]\n", `line 2: seeds: expected a list, each a whole number of at least 0, found \["one"\]`},
		{"methods: fusion\n", `line 1: methods: expected a list, each a word, found "fusion"`},
		{"batch: many\n", `line 1: batch: expected a whole number, found "many"`},
		{"layers: [1]\n", `line 1: layers: expected a word, found \["1"\]`},
		{"", "empty file"},
		{"methods: [none\n", "c.yaml"},
	} {
		write(t, path, bad.text)
		c := Defaults()
		if err := c.ReadConfig(path); err == nil || !regexp.MustCompile(bad.want).MatchString(err.Error()) {
			t.Errorf("%q gave %v", bad.text, err)
		}
	}
	for _, bad := range []struct {
		change func(c *Config)
		want   string
	}{
		{func(c *Config) { c.Methods = []string{"fuse"} }, `methods: expected one of .*, found "fuse"`},
		{func(c *Config) { c.Warmup = 5 }, "warmup: expected a share from 0 to 1, found 5"},
		{func(c *Config) { c.Methods = []string{"svd+tasty"} }, `found "tasty"`},
		{func(c *Config) { c.Methods = []string{"svd+fit"} }, `found "fit"`},
		{func(c *Config) { c.Methods = []string{"none+refit"} }, `found "refit"`},
		{func(c *Config) { c.Methods = []string{"fusion+distill=2"} }, `found "distill=2"`},
		{func(c *Config) { c.Ratios = []float64{2} }, "ratios: expected numbers above 0 and at most 1, found 2"},
		{func(c *Config) { c.Tasks = []string{"sst3"} }, `found "sst3"`},
		{func(c *Config) { c.PModes = []string{"bend"} }, `found "bend"`},
		{func(c *Config) { c.LRs = []float64{0} }, "lrs"},
		{func(c *Config) { c.Seeds = nil }, "seeds"},
		{func(c *Config) { c.Optimizer = "lion" }, `found "lion"`},
		{func(c *Config) { c.Data = "" }, "data"},
		{func(c *Config) { c.Batch = 0 }, "batch"},
	} {
		c := Defaults()
		c.Tasks, c.Widths, c.Model, c.Data = []string{"sst2"}, []int{16}, "m", "d"
		bad.change(&c)
		if err := c.Check(); err == nil || !regexp.MustCompile(bad.want).MatchString(err.Error()) {
			t.Errorf("expected %q, got %v", bad.want, err)
		}
	}
}

// TestTables checks means, deviations, the choice of a learning rate and marks: the
// best only if it is so by more than the noise of rows and seeds.
func TestTables(t *testing.T) {
	cell := func(method string, width int, lr float64, seed uint64, accuracy float64) *Cell {
		c := &Cell{Key: Key{Task: "sst2", Method: method, Width: width, PMode: Keep, LR: lr, Seed: seed}, Main: "accuracy"}
		c.Metrics = []task.Metric{{Name: "accuracy", Value: accuracy}}
		c.Rows = &task.Rows{Metric: "accuracy", Said: make([]float32, 500), Right: make([]float32, 500)}
		for i := range c.Rows.Said { // each model's own mistakes; two fifths of the labels are 1
			c.Rows.Right[i] = float32(i % 5 % 2)
			c.Rows.Said[i] = c.Rows.Right[i]
			if (i*7+int(100*accuracy)+width)%500 >= int(500*accuracy) {
				c.Rows.Said[i] = 2
			}
		}
		return c
	}
	tables := Tables([]*Cell{
		cell("svd", 8, 1, 1, 0.8), cell("svd", 8, 1, 2, 0.9), cell("svd", 8, 2, 1, 0.1),
		cell("fusion", 8, 1, 1, 0.84), cell("fusion", 16, 1, 1, 0.9), cell("none", 0, 1, 1, 0.95),
		cell("svd", 16, 1, 1, 0.6), cell("prune", 8, 1, 1, 0.3), cell("prune", 8, 1, 2, 0.4), cell("prune", 4, 1, 1, 0.4),
	})
	if len(tables) != 1 {
		t.Fatalf("%d tables, want that of the metric alone", len(tables))
	}
	var got []string
	for _, r := range tables[0].Rows {
		line := r.Name
		for _, s := range r.Stats {
			line += " | " + s.String() + map[bool]string{true: "*"}[s.Best] + map[bool]string{true: "~"}[s.Tied]
		}
		got = append(got, line)
	}
	want := "original | 95.00 | 95.00 | 95.00\nfusion | 90.00* | 84.00~ | –\nsvd | 60.00 | 85.00 ± 7.07~ | –\nprune | – | 35.00 ± 7.07 | 40.00\nmost frequent class | 60.00 | 60.00 | 60.00"
	if strings.Join(got, "\n") != want || strings.Join(tables[0].Columns, ", ") != "sst2 c=16, sst2 c=8, sst2 c=4" {
		t.Errorf("columns %v\n%s\nwant\n%s", tables[0].Columns, strings.Join(got, "\n"), want)
	}
	if note := tables[0].Note; note != "1 to 2 seeds, lr 1" {
		t.Errorf("note %q", note)
	}
	// Of a language model's perplexity less is better, in every choice.
	text := func(lr float64, perplexity float64) *Cell {
		c := cell("fusion", 8, lr, 1, 0)
		c.Main, c.Metrics = task.Perplexity, []task.Metric{{Name: task.Perplexity, Value: perplexity}, {Name: task.Loss, Value: 1}}
		return c
	}
	tables = Tables([]*Cell{text(1, 9), text(2, 7), text(3, 8)})
	if len(tables) != 1 || tables[0].Name != "losses" || !tables[0].Lower || tables[0].Rows[0].Stats[0].Mean != 7 {
		t.Errorf("perplexities gave %+v", tables)
	}
}

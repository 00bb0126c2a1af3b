package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mlpfusion/convert"
	"mlpfusion/experiment"
	"mlpfusion/model"
	"mlpfusion/ntk"
	"mlpfusion/task"
	"mlpfusion/train"
)

func writeJSON(t testing.TB, path string, v any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o666); err != nil {
		t.Fatal(err)
	}
}

func writeKernel(t testing.TB, path string, k *ntk.Kernel) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := ntk.WriteNPY(&b, k); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
}

// sample makes a comparison's folder of invented results with all that the page
// draws, in the sizes that real ones have.
func sample(t testing.TB, dir string, seeds []uint64) {
	t.Helper()
	c := experiment.Defaults()
	c.Methods = []string{"none", "fusion", "calibrated+steps", "cluster", "sketch", "svd", "mmd", "prune", "magnitude"}
	c.Tasks, c.Widths, c.Seeds, c.Model, c.Layers, c.TrainRows, c.Epochs = []string{"sst2", "mrpc"}, []int{384, 96, 48}, seeds, "/somewhere/all-MiniLM-L6-v2", "all", 2000, 1
	writeJSON(t, filepath.Join(dir, "comparison.json"), c)
	rng := rand.New(rand.NewPCG(7, 7+seeds[0]))
	kernel := func(error float64) *ntk.Kernel {
		const n = 48
		k := &ntk.Kernel{N: n, Data: make([]float32, n*n)}
		for i := range n {
			for j := range n {
				v := math.Cos(float64(i)/5) * math.Cos(float64(j)/7)
				if i == j {
					v++
				}
				k.Data[i*n+j] = float32(v + error*rng.NormFloat64())
			}
		}
		return k
	}
	for _, key := range c.Cells() {
		badness := map[string]float64{"none": 0, "fusion": 1, "calibrated+steps": 0.6, "cluster": 1.4, "sketch": 5, "svd": 1.6, "mmd": 4, "prune": 1.8, "magnitude": 0.7}[key.Method]
		if key.Width > 0 {
			badness *= 1536 / float64(key.Width) / 8
		}
		cell := experiment.Cell{Key: key, Main: map[string]string{"sst2": "accuracy", "mrpc": "f1"}[key.Task], Parameters: 12345678, OriginalFLOPs: 14155776, FLOPs: 14155776, Examples: 2000, DevExamples: 872,
			SecondsPerStep: 0.4 + rng.Float64()/10, TokensPerSecond: 1900, PeakMemory: 700 << 20}
		score := 0.91 - 0.05*badness/(1+badness/3) + 0.006*rng.NormFloat64()
		for step := 10; step <= 60; step += 10 {
			p := train.Point{LR: key.LR, Step: step, Loss: 0.3 + 0.4*math.Exp(-float64(step)/20/(1+badness/4)) + 0.01*rng.NormFloat64()}
			if step%20 == 0 {
				p.Metrics = []task.Metric{{Name: cell.Main, Value: score - 0.1*float64(60-step)/60}}
			}
			cell.Points = append(cell.Points, p)
		}
		cell.Metrics, cell.Step = cell.Points[5].Metrics, 60
		cell.Seconds = experiment.Seconds{Fuse: 3 * badness, Measure: 4, Train: 30, Total: 36}
		if key.Width > 0 {
			cell.FLOPs = 6 * 4 * 384 * key.Width
			cell.Output = &experiment.OutputError{Logits: 1, LogitsNorm: 2}
			for l := range 6 {
				cell.Output.Hidden = append(cell.Output.Hidden, badness*float64(l+1)/4)
				cell.Output.HiddenNorm = append(cell.Output.HiddenNorm, 8)
				b := experiment.Block{Name: fmt.Sprintf("layer.%d", l), Layer: l, Width: key.Width}
				if key.Method == "fusion" || key.Method == "cluster" || key.Method == "calibrated+steps" {
					b.Total, b.Inertia = 100, 100-float64(key.Width)/8-float64(l)-rng.Float64()
					b.Silhouette = 0.05 + float64(key.Width)/8000 + rng.Float64()/100
				}
				if b.Total > 0 && key.Method != "cluster" {
					left := 1536
					for k := range key.Width {
						n := max(1, (left-(key.Width-k-1))/(4+k%9))
						if k == key.Width-1 {
							n = left
						}
						b.Sizes = append(b.Sizes, n)
						left -= n
					}
				}
				cell.Blocks = append(cell.Blocks, b)
			}
			cell.NTK = &experiment.NTK{Kind: "adam", Rows: 48, Kernel: filepath.Join("kernels", key.ID()+".npy"), Original: filepath.Join("kernels", "original.npy")}
			cell.NTK.Sum = ntk.Difference{Norm: 1, Absolute: badness / 4, Relative: badness / 4 * (1 + rng.Float64()/10), Alignment: 1 / (1 + badness/6)}
			writeKernel(t, filepath.Join(dir, cell.NTK.Kernel), kernel(badness/4))
		}
		writeJSON(t, filepath.Join(dir, "cells", key.ID()+".json"), cell)
	}
	writeKernel(t, filepath.Join(dir, "kernels", "original.npy"), kernel(0))
}

// sampleRun makes a training run's metrics.
func sampleRun(t testing.TB, dir string) {
	t.Helper()
	var b strings.Builder
	for _, lr := range []float64{1e-5, 4e-5} {
		for step := 10; step <= 100; step += 10 {
			p := train.Point{LR: lr, Step: step, Loss: 0.7 * math.Exp(-lr*1e5*float64(step)/200)}
			if step%50 == 0 {
				p.Metrics = []task.Metric{{Name: "accuracy", Value: 0.8 + lr*1e3 + float64(step)/2000}}
			}
			line, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			b.Write(append(line, '\n'))
		}
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, train.MetricsFile), []byte(b.String()), 0o666); err != nil {
		t.Fatal(err)
	}
}

// samplePage is the page of a comparison in two shards and a training run.
func samplePage(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	sample(t, filepath.Join(dir, "shard1"), []uint64{1, 2})
	sample(t, filepath.Join(dir, "shard2"), []uint64{3})
	sampleRun(t, filepath.Join(dir, "tuned"))
	var b strings.Builder
	if err := Write(&b, []string{filepath.Join(dir, "shard1"), filepath.Join(dir, "shard2"), filepath.Join(dir, "tuned")}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestPage checks that everything is on the page, that it refers to nothing
// outside itself, and that the tables' CSV says what they say.
func TestPage(t *testing.T) {
	page := samplePage(t)
	if again := samplePage(t); again != page {
		t.Error("the same results gave another page")
	}
	for _, want := range []string{">Results<", ">Width and cost<", ">Tangent kernels<", ">Output error<", ">Clusters<", ">What predicts the score<", ">Learning curves<", ">Time and memory<", ">All cells<", ">Training runs<",
		"calibrated+steps", "3 seeds", "prefers-color-scheme: dark", "sst2: score against silhouette", "sst2, c = 48: svd", "tuned, lr 4e-05"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if n := strings.Count(page, "<svg"); n != strings.Count(page, "</svg>") || n < 40 {
		t.Errorf("%d plots", n)
	}
	for _, outside := range regexp.MustCompile(`(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)`).FindAllStringSubmatch(page, -1) {
		if to := outside[1]; !strings.HasPrefix(to, "#") && !strings.HasPrefix(to, "data:") {
			t.Errorf("the page refers to %s", to)
		}
	}
	if bad := undefined.FindString(pictures.ReplaceAllString(page, "")); bad != "" {
		t.Errorf("the page says %s", bad)
	}
	if strings.Contains(page, "somewhere") {
		t.Error("the page says where the model lay")
	}
	for _, want := range []string{`class="words"><button type="button">metric`, `<th scope="col"><button type="button">score`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	m := regexp.MustCompile(`download="scores.csv" href="data:text/csv;charset=utf-8,([^"]*)"`).FindStringSubmatch(page)
	if m == nil {
		t.Fatal("no scores to download")
	}
	text, err := url.PathUnescape(strings.ReplaceAll(m[1], "&#43;", "+"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) != 10 || lines[0] != "method,mrpc c=384,mrpc c=96,mrpc c=48,sst2 c=384,sst2 c=96,sst2 c=48" || !strings.HasPrefix(lines[1], "original,9") {
		t.Errorf("the CSV of scores:\n%s", text)
	}
}

// TestRunning reads the metrics of a run that goes on: the line that is being
// written is not there yet.
func TestRunning(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	sampleRun(t, dir+".train")
	f, err := os.OpenFile(filepath.Join(dir+".train", train.MetricsFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"lr": 1e-5, "st`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	var b strings.Builder
	other := filepath.Join(t.TempDir(), "other", "new")
	sampleRun(t, other)
	if err := Write(&b, []string{dir, other}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{">new, lr 4e-05", "other/new, lr 4e-05"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// TestMeasured makes a page of cells that were not fine-tuned: no score, no
// curves, and nothing undefined.
func TestMeasured(t *testing.T) {
	dir := t.TempDir()
	sample(t, dir, []uint64{1})
	cfg, cells, err := experiment.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Epochs = 0
	writeJSON(t, filepath.Join(dir, "comparison.json"), cfg)
	for _, c := range cells {
		c.Metrics, c.Points = nil, nil
		writeJSON(t, filepath.Join(dir, "cells", c.ID()+".json"), c)
	}
	var b strings.Builder
	if err := Write(&b, []string{dir}); err != nil {
		t.Fatal(err)
	}
	page := pictures.ReplaceAllString(b.String(), "")
	for what, wanted := range map[string]bool{">Tangent kernels<": true, ">Output error<": true, "not fine-tuned": true, ">Learning curves<": false, ">What predicts the score<": false, "Dev score": false} {
		if strings.Contains(page, what) != wanted {
			t.Errorf("the page has %q: %t", what, !wanted)
		}
	}
	if bad := undefined.FindString(page); bad != "" {
		t.Errorf("the page says %s", bad)
	}
}

var (
	undefined = regexp.MustCompile(`NaN|Inf\b|ZgotmplZ|%!`)
	pictures  = regexp.MustCompile(`base64,[^"]*`)
)

// TestModel makes a page of a checkpoint with an original, a fused and a factored
// block.
func TestModel(t *testing.T) {
	explained, silhouette := 0.25, -0.125
	c := &convert.Contents{Path: "a <model>", Parameters: 1000, OriginalParameters: 4000, MLPFLOPs: 10, OriginalMLPFLOPs: 40, Blocks: []convert.BlockContents{
		{Name: "layer.0", Width: 64, Original: 64, Parameters: 400, OriginalParam: 400},
		{Name: "layer.1", Method: "fusion", Width: 5, Original: 64, Explained: &explained, Silhouette: &silhouette, Sizes: []int{1, 1, 2, 3, 57}},
		{Name: "layer.2", Method: "svd", Width: 64, Original: 64, Rank: 7},
	}}
	var b strings.Builder
	if err := WriteModel(&b, c); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{"a &lt;model&gt;", "originally 4000", "<td>0.2500</td>", "<td>-0.1250</td>", "<td>57</td>", "cluster sizes of layer.1", ">32–63<", "32–63, clusters: 1", ">original<"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if n := strings.Count(page, "<svg"); n != 1 {
		t.Errorf("%d plots, want the one of the block with P", n)
	}
	if bad := undefined.FindString(page); bad != "" {
		t.Errorf("the page says %s", bad)
	}
}

// TestRefuses folders that hold neither.
func TestRefuses(t *testing.T) {
	empty := t.TempDir()
	unfinished := t.TempDir()
	writeJSON(t, filepath.Join(unfinished, "comparison.json"), experiment.Defaults())
	broken := t.TempDir()
	sampleRun(t, broken)
	if err := os.WriteFile(filepath.Join(broken, train.MetricsFile), []byte("{}\n{\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dirs []string
		want string
	}{
		{nil, "found none"},
		{[]string{empty}, "expected a comparison (comparison.json) or a training run (metrics.jsonl), found neither"},
		{[]string{unfinished}, "expected finished cells"},
		{[]string{broken}, "metrics.jsonl: line 2"},
	} {
		if err := Write(&strings.Builder{}, c.dirs); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v gave %v, want %q", c.dirs, err, c.want)
		}
	}
}

// TestTicks checks that ticks are round, within the scale and not too many.
// TestSinglePoint: a line of one point shows it.
func TestSinglePoint(t *testing.T) {
	for _, c := range []struct{ points, dots int }{{1, 1}, {2, 0}} {
		l := series{x: []float64{1, 2}[:c.points], y: []float64{3, 4}[:c.points]}
		if n := strings.Count(lines("loss", "step", "loss", []series{l}, false, false), "<circle"); n != c.dots {
			t.Errorf("%d points: %d dots, want %d", c.points, n, c.dots)
		}
	}
}

// TestClusterLayers: blocks stand where their layers do, which need not be the first.
func TestClusterLayers(t *testing.T) {
	cell := &experiment.Cell{Key: experiment.Key{Task: "sst2", Method: "fusion", Width: 8, PMode: experiment.Keep}}
	for l := 2; l <= 5; l++ {
		cell.Blocks = append(cell.Blocks, experiment.Block{Layer: l, Total: 2, Inertia: 1 / float64(l)})
	}
	f := newView(&comparison{cells: []*experiment.Cell{cell}}).clusters()
	if len(f) == 0 || !strings.Contains(string(f[0].Plot), "c = 8: 5, 90") {
		t.Errorf("figures %v", f)
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		s    scale
		want string
	}{
		{scale{lo: 0, hi: 1}, "[0 0.2 0.4 0.6 0.8 1]"},
		{scale{lo: 83.1, hi: 91.7}, "[84 86 88 90]"},
		{scale{lo: 40, hi: 500, log: true}, "[50 100 200 500]"},
		{scale{lo: 3, hi: 3}, "[3]"},
		{scale{lo: 42, hi: 42.1}, "[42 42.05 42.1]"},
		{scale{lo: 123.1, hi: 124}, "[123.2 123.4 123.6 123.8 124.0]"},
	} {
		if text := fmt.Sprint(texts(c.s.ticks(5))); text != c.want {
			t.Errorf("%v has ticks %s, want %s", c.s, text, c.want)
		}
	}
}

// TestLoads draws a mark for each expert of each mixture of both models, in colours by
// their shares.
func TestLoads(t *testing.T) {
	plot := loadMap("loads", [][]float64{{0.25, 0.75}, {1, 0}}, [][]float64{{0.5, 0.5}, {0.5, 0.5}})
	if n := strings.Count(plot, "<rect"); n != 8 || !strings.Contains(plot, `data-marks="8"`) {
		t.Errorf("%d marks, want 8", n)
	}
	for _, want := range []string{`fill-opacity="0.75"><title>mixture 0, expert 1: 75.0 %</title>`, `fill-opacity="0.00"><title>mixture 1, expert 1: 0.0 %</title>`, "original", "compressed"} {
		if !strings.Contains(plot, want) {
			t.Errorf("no %s in %s", want, plot)
		}
	}
	if got := loadShares(&model.Usage{Tokens: []int64{6, 2}, Dropped: 2}); !slices.Equal(got, []float64{0.6, 0.2}) {
		t.Errorf("shares are %v", got)
	}
}

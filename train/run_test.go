package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
)

// words makes n rows of 3 to 10 tokens of the tiny models' vocabulary, whose
// label tells which half of it their tokens come from.
func words(n int, seed uint64) *task.Encoded {
	rng := rand.New(rand.NewPCG(seed, 1))
	e := &task.Encoded{Offsets: []int{0}}
	for range n {
		label := rng.IntN(2)
		for range 3 + rng.IntN(8) {
			e.IDs = append(e.IDs, int32(48*label+rng.IntN(48)))
			e.Types = append(e.Types, 0)
		}
		e.Labels = append(e.Labels, float32(label))
		e.Offsets = append(e.Offsets, len(e.IDs))
	}
	return e
}

// tinyRunner fine-tunes a tiny BERT with dropout on random words: 2 epochs of 9
// steps, the last one short, at two learning rates, with points at step 10 and
// evaluations and snapshots in the middle of an epoch too.
func tinyRunner(t testing.TB, dir string, workers int) *Runner {
	spec, err := task.Lookup("sst2")
	if err != nil {
		t.Fatal(err)
	}
	pool := kernel.NewPool(workers)
	t.Cleanup(pool.Close)
	return &Runner{
		Config: Config{Epochs: 2, Batch: 8, LR: []float64{1e-4, 2e-3}, Schedule: Linear, Warmup: 0.1, Optimizer: PaperOptimizer, Seed: 3, EvalEvery: 7, SnapshotEvery: 4},
		Data:   Data{Spec: spec, Train: words(67, 1), Dev: words(150, 2)},
		Pool:   pool, Dir: dir,
		Load: func() (*model.Model, error) {
			m := load(t, "bert-fused", model.LoadOptions{})
			m.Config.HiddenDrop, m.Config.AttnDrop, m.Config.HeadDrop = 0.1, 0.1, 0.1
			return m, nil
		},
	}
}

// outcome is all that a run leaves: metrics, weights and result, as bytes.
func outcome(t testing.TB, r *Runner, m *model.Model, result *Result) []byte {
	t.Helper()
	var b bytes.Buffer
	metrics, err := os.ReadFile(filepath.Join(r.Dir, MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	b.Write(metrics)
	kept := *result
	kept.SecondsPerStep, kept.TokensPerSecond = 0, 0 // measured
	if err := json.NewEncoder(&b).Encode(kept); err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Params {
		for _, v := range p.Data {
			bits := math.Float32bits(v)
			b.Write([]byte{byte(bits), byte(bits >> 8), byte(bits >> 16), byte(bits >> 24)})
		}
	}
	return b.Bytes()
}

func run(t testing.TB, r *Runner) []byte {
	t.Helper()
	m, result, err := r.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return outcome(t, r, m, result)
}

// same fails with the first line that differs.
func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	a, b := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range min(len(a), len(b)) {
		if !bytes.Equal(a[i], b[i]) {
			t.Errorf("%s: line %d is\n%.200q, want\n%.200q", what, i, a[i], b[i])
			return
		}
	}
	t.Errorf("%s: %d bytes, want %d", what, len(got), len(want))
}

// TestWorkers runs with 1, 2 and 3 workers, dropout on, at both precisions: the
// same bytes. Another seed, and the other precision, give others.
func TestWorkers(t *testing.T) {
	with := func(bf16 bool, seed uint64, workers int) []byte {
		r := tinyRunner(t, t.TempDir(), workers)
		r.Config.BF16, r.Config.Seed = bf16, seed
		return run(t, r)
	}
	want := map[bool][]byte{}
	for _, bf16 := range []bool{false, true} {
		want[bf16] = with(bf16, 3, 2)
		for _, workers := range []int{1, 3} {
			same(t, "another number of workers", with(bf16, 3, workers), want[bf16])
		}
	}
	if bytes.Equal(with(false, 4, 2), want[false]) {
		t.Error("another seed gave the same bytes")
	}
	if bytes.Equal(want[false], want[true]) {
		t.Error("bfloat16 gave the same bytes")
	}
}

// TestBest checks that the best evaluation of all learning rates is kept: its
// score is the largest of the metrics, and the model returned has it.
func TestBest(t *testing.T) {
	r := tinyRunner(t, t.TempDir(), 2)
	m, result, err := r.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(r.Dir, MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	var best Point
	tried := map[float64]int{}
	for line := range strings.Lines(string(text)) {
		var p Point
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatal(err)
		}
		if p.Metrics == nil {
			continue
		}
		tried[p.LR]++
		if best.Metrics == nil || p.Metrics[0].Value > best.Metrics[0].Value {
			best = p
		}
	}
	// Steps 7, 14 and the last, 18.
	if !maps.Equal(tried, map[float64]int{1e-4: 3, 2e-3: 3}) {
		t.Errorf("evaluations by learning rate: %v", tried)
	}
	if result.LR != best.LR || result.Step != best.Step || result.Metrics[0] != best.Metrics[0] {
		t.Errorf("kept %+v, the best is %+v", result, best)
	}
	if best.LR != 2e-3 {
		t.Errorf("the best learning rate is %g: these data should favour the larger", best.LR)
	}
	logits, err := NewEvaluator(r.Pool, kernel.FP32).Logits(context.Background(), m, r.Data.Dev, nil)
	if err != nil {
		t.Fatal(err)
	}
	if scores, err := task.Score(r.Data.Spec, logits, r.Data.Dev.Labels); err != nil || scores[0] != result.Metrics[0] {
		t.Errorf("the model returned scores %v (%v), the result says %v", scores, err, result.Metrics)
	}
}

// stopAt makes the runner's observer call stop at the n-th event of a kind.
func stopAt(r *Runner, event string, n int, stop func()) {
	seen := 0
	hit := func(kind string) {
		if kind == event {
			if seen++; seen == n {
				stop()
			}
		}
	}
	r.Observer = Observer{
		Step:  func(int, int, float64) { hit("step") },
		Eval:  func(int, int) { hit("eval") },
		Point: func(Point) { hit("point") },
	}
}

// TestInterrupt ends the context within steps, within evaluations, which leaves
// one to be repeated, and between the two learning rates, and goes on: the same
// bytes as an undisturbed run.
func TestInterrupt(t *testing.T) {
	want := run(t, tinyRunner(t, t.TempDir(), 2))
	for _, at := range []struct {
		event string
		n     int
	}{{"step", 5}, {"step", 18}, {"step", 36}, {"eval", 2}, {"eval", 11}, {"point", 4}} {
		r := tinyRunner(t, t.TempDir(), 2)
		ctx, cancel := context.WithCancel(context.Background())
		stopAt(r, at.event, at.n, cancel)
		m, result, err := r.Run(ctx)
		if err == nil { // it was the last thing to be done
			same(t, "a run stopped at its end", outcome(t, r, m, result), want)
			continue
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped at %v: %v", at, err)
		}
		again := tinyRunner(t, r.Dir, 1)
		if _, _, err := again.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "--resume") {
			t.Errorf("a new run over a stopped one gave %v", err)
		}
		again = tinyRunner(t, r.Dir, 1)
		again.Resume = true
		same(t, "stopped at "+at.event, run(t, again), want)
	}
}

// TestKilled runs in processes of its own that end by SIGKILL, some at chosen
// events and some while a file is being written, as often as it takes; the last
// one ends by itself with the bytes of an undisturbed run.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("MLPFUSION_TEST_RUN"); dir != "" {
		killedChild(t, dir)
		return
	}
	want := run(t, tinyRunner(t, t.TempDir(), 2))
	for _, moments := range [][]string{
		{"step:3"},                       // before the first snapshot
		{"step:9", "step:2", "eval:1"},   // within an epoch, soon after going on, in an evaluation
		{"eval:2", "point:1", "step:20"}, // in the second learning rate
		// A file may be caught so late that no event would follow: it comes last.
		{"step:6", ".best.safetensors.tmp"},     // while the best weights are written
		{"eval:3", ".snapshot.safetensors.tmp"}, // while a snapshot is written
		{"step:36"},                             // after the last step
	} {
		dir := t.TempDir()
		for _, moment := range append(moments, "") {
			cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
			cmd.Env = append(os.Environ(), "MLPFUSION_TEST_RUN="+dir, "MLPFUSION_TEST_KILL="+moment)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			killed := errors.As(err, &exit) && (!exit.Exited() || runtime.GOOS == "windows") // where a killed process has a status too
			// A file may be written too fast to be caught at it.
			if !killed && (moment != "" && moment[0] != '.' || err != nil) {
				t.Fatalf("%v: at %q the run ended with %v: %s", moments, moment, err, out)
			}
		}
		got, err := os.ReadFile(filepath.Join(dir, "outcome"))
		if err != nil {
			t.Fatal(err)
		}
		same(t, strings.Join(moments, ", "), got, want)
	}
}

// killedChild is one process of TestKilled.
func killedChild(t *testing.T, dir string) {
	r := tinyRunner(t, filepath.Join(dir, "run"), 2)
	r.Resume = true
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	kill := func() { _ = self.Kill(); select {} }
	moment := os.Getenv("MLPFUSION_TEST_KILL")
	if event, n, ok := strings.Cut(moment, ":"); ok {
		count := 0
		for _, c := range n {
			count = 10*count + int(c-'0')
		}
		stopAt(r, event, count, kill)
	} else if moment != "" {
		go func() {
			for {
				if _, err := os.Stat(filepath.Join(r.Dir, moment)); err == nil {
					kill()
				}
				time.Sleep(20 * time.Microsecond)
			}
		}()
	}
	got := run(t, r)
	if err := os.WriteFile(filepath.Join(dir, "outcome"), got, 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestOtherSettings refuses to go on with another run's snapshot, another model or
// other data, and says what it is.
func TestOtherSettings(t *testing.T) {
	r := tinyRunner(t, t.TempDir(), 2)
	ctx, cancel := context.WithCancel(context.Background())
	stopAt(r, "step", 2, cancel)
	if _, _, err := r.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func(*Runner)
		say    string
	}{
		{func(r *Runner) { r.Config.Batch = 4 }, "found others: batch was 8 and is 4"},
		{func(r *Runner) { r.Config.MaxSteps, r.Config.Seed = 9, 77 }, "found others: max_steps was not set and is 9, seed was 3 and is 77"},
		{func(r *Runner) { r.Config.Optimizer.WeightDecay = 0.5 }, "found others: optimizer.WeightDecay was 0.1 and is 0.5"},
		{func(r *Runner) { r.Model = "another" }, "found others: the weights of MODEL changed"},
		{func(r *Runner) {
			other := *r.Data.Train
			other.IDs = slices.Clone(other.IDs)
			other.IDs[len(other.IDs)-1]++
			r.Data.Train = &other
		}, "found others: the training set changed"},
		{func(r *Runner) {
			other := *r.Data.Dev
			other.Labels = slices.Clone(other.Labels)
			other.Labels[0] = 1 - other.Labels[0]
			r.Data.Dev = &other
		}, "found others: the dev set changed"},
	} {
		again := tinyRunner(t, r.Dir, 2)
		again.Resume = true
		c.change(again)
		_, _, err := again.Run(context.Background())
		if err == nil || !strings.Contains(err.Error(), "expected the settings of the run to be resumed") || !strings.Contains(err.Error(), c.say) || strings.Contains(err.Error(), "{") {
			t.Errorf("gave %v, expected %s", err, c.say)
		}
	}
	broken := tinyRunner(t, r.Dir, 2)
	broken.Resume = true
	if err := os.Truncate(filepath.Join(r.Dir, snapshotFile), 1000); err != nil {
		t.Fatal(err)
	}
	if _, _, err := broken.Run(context.Background()); err == nil || !strings.Contains(err.Error(), snapshotFile) {
		t.Errorf("a truncated snapshot gave %v", err)
	}
}

// TestSGD: the optimizer called sgd moves a weight against its clipped gradient
// and by nothing else, as torch.optim.SGD does.
func TestSGD(t *testing.T) {
	cfg, err := ParseOptimizer("sgd")
	if err != nil {
		t.Fatal(err)
	}
	pool := kernel.NewPool(2)
	defer pool.Close()
	m := load(t, "bert", model.LoadOptions{})
	s := NewStepper(pool, m, cfg, kernel.FP32, 0)
	var before [][]float32
	for _, p := range m.Params {
		before = append(before, slices.Clone(p.Data))
	}
	var batch task.Batch
	words(8, 5).Fill(&batch, []int32{0, 1, 2, 3, 4, 5, 6, 7})
	const lr = 0.25
	s.Step(&batch, lr)
	s.Optimizer.Flush()
	clip, moved := min(1, 1/s.Optimizer.Norm()), false
	for i, p := range m.Params {
		for j, w := range p.Data {
			want := float64(before[i][j]) - lr*clip*float64(p.Grad()[j])
			if !(math.Abs(float64(w)-want) <= 1e-6*max(1, math.Abs(want))) {
				t.Fatalf("%s[%d] = %g, expected %g", p.Name, j, w, want)
			}
			moved = moved || w != before[i][j]
		}
	}
	if !moved {
		t.Error("nothing moved")
	}
}

// TestDiverged checks the error of a learning rate that is far too large.
func TestDiverged(t *testing.T) {
	r := tinyRunner(t, t.TempDir(), 2)
	r.Config.LR, r.Config.Warmup = []float64{1e30}, 0
	_, _, err := r.Run(context.Background())
	if err == nil || !strings.Contains(err.Error(), "expected a finite loss") || !strings.Contains(err.Error(), "1e+30") {
		t.Errorf("a learning rate of 1e30 gave %v", err)
	}
	if _, err := os.Stat(filepath.Join(r.Dir, snapshotFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a diverged run left a snapshot: %v", err)
	}
}

// TestNoAllocation checks what docs/architecture.md promises: a steady training step and a steady
// evaluation batch allocate nothing, at both precisions.
func TestNoAllocation(t *testing.T) {
	for _, prec := range []kernel.Precision{kernel.FP32, kernel.BF16} {
		testNoAllocation(t, prec)
	}
}

func testNoAllocation(t *testing.T, prec kernel.Precision) {
	for _, name := range []string{"bert", "bert-fused", "distilbert", "roberta", "t5-label", "switch-label", "switch-fused"} {
		pool := kernel.NewPool(2)
		defer pool.Close()
		m := load(t, name, model.LoadOptions{})
		m.Config.HiddenDrop, m.Config.AttnDrop, m.Config.HeadDrop = 0.1, 0.1, 0.1
		s := NewStepper(pool, m, PaperOptimizer, prec, 0)
		data := words(32, 1)
		var batch task.Batch
		order := task.Shuffle(0, 0, data.Len())
		step := func() {
			data.Fill(&batch, order)
			s.Step(&batch, 1e-5)
		}
		for range 3 {
			step()
		}
		if n := testing.AllocsPerRun(20, step); n != 0 {
			t.Errorf("%s, precision %d: a training step allocates %g times", name, prec, n)
		}
		e := NewEvaluator(pool, prec)
		batches := func() { e.whole.forward(m, data, order) }
		batches()
		if n := testing.AllocsPerRun(20, batches); n != 0 {
			t.Errorf("%s, precision %d: an evaluation batch allocates %g times", name, prec, n)
		}
	}
}

// TestLazyRows checks that putting off the steps of embedding rows that no
// batch touches changes nothing: to the last bit as when all rows are read, and
// so brought up to date, at each step. AdamW with momentum and decay.
func TestLazyRows(t *testing.T) {
	pool := kernel.NewPool(2)
	defer pool.Close()
	data := words(24, 5)
	train := func(dense bool) *Stepper {
		m := load(t, "bert", model.LoadOptions{})
		s := NewStepper(pool, m, PaperOptimizer, kernel.FP32, 0)
		var batch task.Batch
		for step := range 24 {
			data.Fill(&batch, []int32{int32(step * 7 % 24)})
			s.Step(&batch, 1e-3/float64(step+1))
			if !dense {
				if step == 11 {
					s.Optimizer.Flush() // as an evaluation does
				}
				continue
			}
			for _, st := range s.Optimizer.states {
				if st.done == nil {
					continue
				}
				all := make([]int32, len(st.done))
				for r := range all {
					all[r] = int32(r)
				}
				s.Optimizer.CatchUp(st.p.Weight, all)
			}
		}
		s.Optimizer.Flush()
		return s
	}
	lazy, dense := train(false), train(true)
	for i, a := range lazy.Optimizer.states {
		b := dense.Optimizer.states[i]
		for what, pair := range map[string][2][]float32{"values": {a.p.Data, b.p.Data}, "first moment": {a.m, b.m}, "second moment": {a.v, b.v}} {
			if !slices.Equal(pair[0], pair[1]) {
				t.Errorf("%s: the %s differ", a.p.Name, what)
			}
		}
	}
	// The rows did move without being touched: decay and momentum are there.
	first := load(t, "bert", model.LoadOptions{})
	untouched := 0
	for i, p := range first.Params {
		if p.Weight.Touched == nil {
			continue
		}
		for r := range len(p.Data) / p.Cols {
			if !slices.Equal(p.Data[r*p.Cols:(r+1)*p.Cols], lazy.Model.Params[i].Data[r*p.Cols:(r+1)*p.Cols]) {
				untouched++
			}
		}
	}
	if untouched == 0 {
		t.Error("no embedding row moved")
	}
}

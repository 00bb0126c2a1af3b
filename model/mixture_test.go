package model_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mlpfusion/checkpoint"
	"mlpfusion/internal/golden"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
)

// mixtures are checkpoints of decoders with mixtures of experts
// (scripts/goldens/mixtures.py), which the tests of language models use too.
var mixtures = []string{"mixtral"}

// TestChoices compares the experts that each token goes to, and their weights, with
// transformers', and the routers' loss.
func TestChoices(t *testing.T) {
	for _, name := range mixtures {
		t.Run(name, func(t *testing.T) {
			g := openGolden(t, name)
			m := load(t, name, model.LoadOptions{})
			pool := kernel.NewPool(2)
			defer pool.Close()
			tape := nn.NewTape(pool)
			tape.Reset(0)
			tape.Train = true // keeps what the routers say
			m.RouterLosses = slices.Contains(g.Names(), "balance_loss")
			m.Loss(tape, nn.CrossEntropy, g.text("a"), nil)
			if m.RouterLosses {
				want := float64(g.Floats("balance_loss")[0])
				golden.NearValue(t, "balance loss", m.BalanceLoss[0], want, 1e-6*want)
			}
			for i, r := range m.Routings() {
				experts, weights := g.Ints("expert."+strconv.Itoa(i)), g.Floats("weight."+strconv.Itoa(i))
				seen := make([]int64, r.Experts)
				k := r.Router.TopK
				var got []float32 // in the golden's order
				for j, e := range experts {
					seen[e]++
					token := j / k * k
					at := slices.Index(r.Expert[token:token+k], e)
					if at < 0 {
						t.Fatalf("mixture %d: token %d goes to %v, want %v", i, j/k, r.Expert[token:token+k], experts[token:token+k])
					}
					got = append(got, r.Weight[token+at])
				}
				golden.Near(t, fmt.Sprintf("mixture %d: weights", i), got, weights, 1e-5)
				if u := m.Usage()[i]; !slices.Equal(u.Tokens, seen) || u.Dropped != 0 {
					t.Errorf("%s: counted %v and dropped %d, want %v", u.Name, u.Tokens, u.Dropped, seen)
				}
			}
		})
	}
}

// TestStacked loads a checkpoint whose experts lie in stacks: it is that which has a
// tensor for each, and is saved as such.
func TestStacked(t *testing.T) {
	for _, name := range []string{"mixtral"} {
		m, stacked := load(t, name, model.LoadOptions{}), load(t, name+"-stacked", model.LoadOptions{})
		for i, p := range m.Params {
			if q := stacked.Params[i]; p.Name != q.Name || !slices.Equal(p.Data, q.Data) {
				t.Errorf("%s differs from %s in the stacked checkpoint", p.Name, q.Name)
			}
		}
		dir, err := checkpoint.OpenDir(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		out, err := checkpoint.CreateOutput(filepath.Join(t.TempDir(), "saved"), false)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Abort()
		if err := stacked.Save(out, dir.Config); err != nil {
			t.Fatal(err)
		}
		saved, err := checkpoint.OpenDir(out.Dir)
		if err != nil {
			t.Fatal(err)
		}
		defer saved.Close()
		got, want := slices.Sorted(slices.Values(saved.Weights.Names())), slices.Sorted(slices.Values(dir.Weights.Names()))
		if !slices.Equal(got, want) {
			t.Errorf("%s: saved %s, want %s", name, strings.Join(got, " "), strings.Join(want, " "))
		}
	}
}

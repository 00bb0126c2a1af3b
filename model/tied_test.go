package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"mlpfusion/kernel"
	"mlpfusion/nn"
)

// TestSharedMatrices trains experts that share their matrices beside experts that
// have copies of them: the same loss, and the shared gradient is the sum of the
// copies'.
func TestSharedMatrices(t *testing.T) {
	const owner = "encoder.block.1.layer.1.mlp.experts.expert_0"
	build := func(shared bool) *Model {
		cfg, err := ParseConfig([]byte(`{"architectures": ["SwitchTransformersForSequenceClassification"], "model_type": "switch_transformers",
			"d_model": 8, "d_kv": 4, "d_ff": 12, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 2, "vocab_size": 96, "dropout_rate": 0,
			"num_experts": 3, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "router_jitter_noise": 0, "decoder_start_token_id": 0}`))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Blocks = map[string]BlockConfig{}
		for e := range 3 {
			form := BlockConfig{Width: 5, ClusterSizes: true}
			if shared && e > 0 {
				form.Weights = owner
			}
			cfg.Blocks[fmt.Sprintf("%s%d", owner[:len(owner)-1], e)] = form
		}
		m, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	one, three := build(true), build(false)
	r := rand.New(rand.NewPCG(1, 1))
	values := map[string][]float32{}
	for i := range one.Tensors {
		x := &one.Tensors[i]
		for j := range x.values() {
			x.values()[j] = float32(0.5 * r.NormFloat64())
			if x.Fixed != nil {
				x.values()[j] = float32(r.IntN(3)) // some units are not an expert's own
			}
		}
		if x.Fixed != nil {
			x.values()[i%5] = 2
		}
		values[x.Name] = x.values()
	}
	// Every unit is somebody's.
	p := [3][]float32{}
	for e := range p {
		p[e] = values[fmt.Sprintf("%s%d.mlp_scale", owner[:len(owner)-1], e)]
	}
	for k := range p[0] {
		if p[0][k]+p[1][k]+p[2][k] == 0 {
			p[1][k] = 1
		}
	}
	for i := range three.Tensors {
		x := &three.Tensors[i]
		from, ok := values[x.Name]
		if !ok {
			from = values[owner+x.Name[len(owner):]] // a copy
		}
		copy(x.values(), from)
	}
	if err := setUnitNorms(one.Blocks); err != nil {
		t.Fatal(err)
	}
	in := &Input{IDs: []int32{2, 11, 30, 7, 3, 2, 40, 41, 3, 2, 5, 3, 50, 51, 52, 53}, Offsets: []int32{0, 5, 9, 16}}
	pool := kernel.NewPool(2)
	defer pool.Close()
	var losses [2]float64
	for i, m := range []*Model{one, three} {
		tape := nn.NewTape(pool)
		tape.Train = true
		tape.Reset(1)
		m.ZeroGrad()
		losses[i] = m.Loss(tape, nn.CrossEntropy, in, []float32{0, 1, 0})
		tape.Backward()
		for _, w := range m.Weights {
			w.SettleGrad()
		}
	}
	if !(math.Abs(losses[0]-losses[1]) <= 1e-6) {
		t.Fatalf("loss %g with shared matrices, %g with copies", losses[0], losses[1])
	}
	seen := 0
	for i := range one.Tensors {
		x := &one.Tensors[i]
		if x.Param == nil {
			continue
		}
		want := make([]float32, len(x.Param.Grad()))
		for j := range three.Tensors {
			y := &three.Tensors[j]
			same := y.Name == x.Name
			if strings.HasPrefix(x.Name, owner) {
				same = strings.HasPrefix(y.Name, owner[:len(owner)-1]) && y.Name[len(owner):] == x.Name[len(owner):]
			}
			if same {
				kernel.Axpy(1, y.Param.Grad(), want)
			}
		}
		for k, v := range x.Param.Grad() {
			if !(math.Abs(float64(v-want[k])) <= 1e-5) {
				t.Fatalf("%s: gradient %g at %d, of the copies %g in all", x.Name, v, k, want[k])
			}
			if v != 0 && strings.HasPrefix(x.Name, owner) {
				seen++
			}
		}
	}
	if seen == 0 {
		t.Fatal("no gradient reached the shared matrices")
	}
	norm := one.Blocks[1].MLP.unitNorm
	for k := range norm {
		var sum, squares float32
		for e := range p {
			sum += p[e][k]
			squares += p[e][k] * p[e][k]
		}
		if norm[k] != sum/squares {
			t.Errorf("unit %d: weight %g in the clipping norm, want %g of P %g, %g, %g", k, norm[k], sum/squares, p[0][k], p[1][k], p[2][k])
		}
	}
	p[0][0], p[1][0], p[2][0] = 0, 0, 0
	if err := setUnitNorms(one.Blocks); err == nil || !strings.Contains(err.Error(), "expected positive cluster sizes, found 0 for unit 0") {
		t.Errorf("a unit of nobody: error %v", err)
	}
	p[2][0] = -1
	if err := setUnitNorms(one.Blocks); err == nil || !strings.Contains(err.Error(), "expected cluster sizes of at least 0, found -1 for unit 0") {
		t.Errorf("a negative size: error %v", err)
	}
}

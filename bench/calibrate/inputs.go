package main

import (
	"fmt"

	"mlpfusion/checkpoint"
	"mlpfusion/fusion"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/nn"
	"mlpfusion/task"
	"mlpfusion/tokenize"
)

// subject is one MLP with what the original model feeds it.
type subject struct {
	mlp         *fusion.MLP
	calib, held tokens
}

// tokens are packed MLP inputs; they implement fusion.Inputs.
type tokens struct {
	hidden int
	x      []float32
}

func (t tokens) Each(f func(x []float32, n int) error) error { return f(t.x, t.len()) }

func (t tokens) len() int { return len(t.x) / t.hidden }

// subjects runs the model on the first calib and the next held of the shuffled
// training sentences of SST-2, and keeps the inputs of every MLP.
func subjects(modelDir, dataDir string, calib, held int, pool *kernel.Pool) ([]subject, error) {
	dir, err := checkpoint.OpenDir(modelDir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	net, _, err := model.Load(dir, model.LoadOptions{NewHead: true})
	if err != nil {
		return nil, err
	}
	tok, err := tokenize.Load(modelDir)
	if err != nil {
		return nil, err
	}
	spec, err := task.Lookup("sst2")
	if err != nil {
		return nil, err
	}
	data, err := task.Load(spec, dataDir, task.Columns{})
	if err != nil {
		return nil, err
	}
	if len(data.Train) < calib+held {
		return nil, fmt.Errorf("%s: expected at least %d training sentences, found %d", dataDir, calib+held, len(data.Train))
	}
	examples := make([]task.Example, calib+held)
	for i, row := range task.Shuffle(0, 0, len(data.Train))[:len(examples)] {
		examples[i] = data.Train[row]
	}
	rows, err := task.Encode(tok, examples, tok.VocabSize(), net.MaxLength(), nil)
	if err != nil {
		return nil, err
	}

	list := make([]subject, len(net.Blocks))
	for i, b := range net.Blocks {
		list[i] = subject{weights(b), tokens{hidden: b.Hidden}, tokens{hidden: b.Hidden}}
	}
	tape := nn.NewTape(pool)
	var batch task.Batch
	for start := 0; start < rows.Len(); start += 32 {
		end := min(start+32, rows.Len())
		if start < calib {
			end = min(end, calib)
		}
		index := make([]int32, 0, 32)
		for r := start; r < end; r++ {
			index = append(index, int32(r))
		}
		rows.Fill(&batch, index)
		in := &model.Input{IDs: batch.IDs, Types: batch.Types, Offsets: batch.Offsets}
		if err := net.Check(in); err != nil {
			return nil, err
		}
		tape.Reset(start)
		s := net.Embed(tape, in)
		for i, b := range net.Blocks {
			s = net.Layer(tape, i, s, in)
			to := &list[i].calib
			if start >= calib {
				to = &list[i].held
			}
			to.x = append(to.x, b.MLP.X.Data[:batch.Tokens()*b.Hidden]...)
		}
		if end < start+32 {
			start = end - 32
		}
	}
	return list, nil
}

func weights(b *model.Block) *fusion.MLP {
	return &fusion.MLP{
		Hidden: b.Hidden, Width: b.Width, Act: b.Act,
		Up: b.MLP.Up.W.Data, UpBias: b.MLP.Up.B.Data, Down: b.MLP.Down.W.Data, DownBias: b.MLP.Down.B.Data,
	}
}

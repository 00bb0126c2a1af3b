//go:build unix

package tokenize

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// BenchmarkEncode reports tokens in a second of processor time, which counts
// right on a busy machine, on SST-2's dev sentences when they are there and else
// on the sentences of the goldens.
func BenchmarkEncode(b *testing.B) {
	texts := sentences()
	if data, err := os.ReadFile(filepath.Join(dataFolder(), "SST-2", "dev.tsv")); err == nil {
		texts = strings.Split(string(data), "\n")[1:]
	}
	for _, name := range []string{"minilm", "gpt2", "t5-albert", "smollm2"} {
		b.Run(name, func(b *testing.B) {
			tok := open(b, name, readGoldens(b).Tokenizers[name].Config)
			tokens, from := 0, processorTime(b)
			b.ReportAllocs()
			for b.Loop() {
				for _, s := range texts {
					tokens += len(tok.Encode(s, nil, 128).IDs)
				}
			}
			b.ReportMetric(float64(tokens)/(processorTime(b)-from), "tokens/cpu-s")
		})
	}
}

// processorTime is what this process has used, in seconds.
func processorTime(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

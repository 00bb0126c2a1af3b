package tokenize

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// BenchmarkEncode reports tokens/s on one core, on SST-2's dev sentences when
// they are there and else on the sentences of the goldens.
func BenchmarkEncode(b *testing.B) {
	texts := sentences()
	if data, err := os.ReadFile(filepath.Join(dataFolder(), "SST-2", "dev.tsv")); err == nil {
		texts = strings.Split(string(data), "\n")[1:]
	}
	for _, name := range []string{"minilm", "gpt2", "t5-albert"} {
		b.Run(name, func(b *testing.B) {
			tok := open(b, name, readGoldens(b).Tokenizers[name].Config)
			tokens := 0
			b.ReportAllocs()
			for b.Loop() {
				for _, s := range texts {
					tokens += len(tok.Encode(s, nil, 128).IDs)
				}
			}
			b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

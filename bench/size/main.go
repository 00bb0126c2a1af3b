// Command size makes a BERT checkpoint of any size with random weights, fuses it
// as a process of its own, and reports that process's peak memory and throughput;
// then fuses it again, kills that halfway, resumes, and compares the bytes of all
// files. A checkpoint that is there already is used as it is.
//
//	go run ./bench/size -bin bin/mlpfusion -dir DIR [-gigabytes 10] [-- FUSE-FLAGS…]
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"mlpfusion/bench/internal/usage"
	"mlpfusion/checkpoint"
	"mlpfusion/model"
)

func main() {
	log.SetFlags(0)
	bin := flag.String("bin", "bin/mlpfusion", "the program")
	dir := flag.String("dir", "", "folder for the checkpoint and what is made of it, some three times its size")
	gigabytes := flag.Float64("gigabytes", 10, "size of the checkpoint")
	hidden := flag.Int("hidden", 2048, "hidden size; blocks have four times as many units")
	experts := flag.Int("experts", 0, "make a Switch Transformer of base size with this many experts a mixture, whatever -gigabytes and -hidden")
	dtype := flag.String("dtype", "f32", "storage of its weights: f32 or bf16")
	once := flag.Bool("once", false, "do not fuse it again")
	flag.Parse()
	stored, ok := map[string]checkpoint.DType{"f32": checkpoint.F32, "bf16": checkpoint.BF16}[*dtype]
	if *dir == "" || *hidden < 64 || *hidden%64 != 0 || *experts < 0 || !ok {
		log.Fatal("expected -dir DIR, a -hidden divisible by 64, -experts of at least 0 and -dtype f32 or bf16")
	}
	config := bertOf(*gigabytes, *hidden)
	if *experts > 0 {
		config, *hidden = switchBase(*experts), 768
	}
	if err := run(*bin, *dir, config, stored, *hidden, *once, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func run(bin, dir, config string, stored checkpoint.DType, hidden int, once bool, flags []string) error {
	source := filepath.Join(dir, "source")
	if _, err := os.Stat(source); errors.Is(err, fs.ErrNotExist) {
		err = generate(source, config, stored)
		if err != nil {
			return err
		}
	}
	size, err := bytesOf(source)
	if err != nil {
		return err
	}
	matrix := float64(4 * 4 * hidden * (2*hidden + 1)) // an expert's lacks the biases
	fmt.Printf("source: %.2f GB in blocks of %d units; the largest block's sub-MLP matrix %.0f MB, so at most %.0f MB\n",
		float64(size)/1e9, 4*hidden, matrix/1e6, 3*matrix/1e6+200)

	fuse := func(out string, more ...string) *exec.Cmd {
		c := exec.Command(bin, append(append([]string{"fuse", source, filepath.Join(dir, out), "--quiet"}, flags...), more...)...)
		c.Stderr = os.Stderr
		return c
	}
	whole := fuse("whole")
	start := time.Now()
	if err := whole.Run(); err != nil {
		return err
	}
	wall := time.Since(start)
	report("fused", whole, wall, size)
	if once {
		return nil
	}
	want, err := sums(filepath.Join(dir, "whole"))
	if err != nil {
		return err
	}
	made, err := bytesOf(filepath.Join(dir, "whole"))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(dir, "whole")); err != nil {
		return err
	}

	killed := fuse("resumed")
	if err := killed.Start(); err != nil {
		return err
	}
	time.Sleep(wall / 2)
	if err := killed.Process.Kill(); err != nil {
		return err
	}
	if err := killed.Wait(); err == nil {
		return fmt.Errorf("it ended before it could be killed, after %v", wall/2)
	}
	kept, err := filepath.Glob(filepath.Join(dir, "resumed.fuse", "block-*.safetensors"))
	if err != nil {
		return err
	}
	report(fmt.Sprintf("killed after %.0f s with %d blocks kept", (wall/2).Seconds(), len(kept)), killed, wall/2, 0)
	start = time.Now()
	resumed := fuse("resumed", "--resume")
	if err := resumed.Run(); err != nil {
		return err
	}
	report("resumed", resumed, time.Since(start), 0)
	got, err := sums(filepath.Join(dir, "resumed"))
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("resumed: expected the bytes of an uninterrupted run\n%sfound\n%s", want, got)
	}
	fmt.Printf("the same bytes after kill and --resume: %.2f GB\n%s", float64(made)/1e9, want)
	return nil
}

// report prints a process's peak memory and speed; bytes is how much of a
// checkpoint it has read and converted, 0 if not all of it.
func report(what string, c *exec.Cmd, wall time.Duration, bytes int64) {
	fmt.Printf("%s: %.1f s, %.1f s of processor, peak memory %.0f MB", what, wall.Seconds(),
		(c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds(), float64(usage.Peak(c.ProcessState))/1e6)
	if bytes > 0 {
		fmt.Printf(", %.0f MB of checkpoint a second", float64(bytes)/1e6/wall.Seconds())
	}
	fmt.Println()
}

// bytesOf is the size of a folder's files.
func bytesOf(dir string) (n int64, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
	}
	return n, err
}

// sums returns a line with the SHA-256 of each file of a folder.
func sums(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	command := exec.Command("sha256sum")
	command.Dir = dir
	for _, e := range entries {
		command.Args = append(command.Args, e.Name())
	}
	text, err := command.Output()
	return string(text), err
}

// bertOf is the configuration of a BERT with as many layers as the size holds.
func bertOf(gigabytes float64, hidden int) string {
	layers := max(1, int(gigabytes*1e9/float64(4*12*hidden*hidden)+0.999))
	return fmt.Sprintf(`{"architectures": ["BertForSequenceClassification"], "model_type": "bert", "vocab_size": 1000,
	"hidden_size": %d, "num_hidden_layers": %d, "num_attention_heads": %d, "intermediate_size": %d}`, hidden, layers, hidden/64, 4*hidden)
}

// switchBase is the configuration of google/switch-base-8 and its larger kin.
func switchBase(experts int) string {
	return fmt.Sprintf(`{"architectures": ["SwitchTransformersForConditionalGeneration"], "model_type": "switch_transformers", "vocab_size": 32128,
	"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_heads": 12, "num_layers": 12, "num_decoder_layers": 12, "num_experts": %d,
	"num_sparse_encoder_layers": 6, "num_sparse_decoder_layers": 6, "expert_capacity": 64}`, experts)
}

// generate writes the checkpoint: weights uniform about 0 with the deviation 0.02.
func generate(dir, config string, stored checkpoint.DType) error {
	parsed, err := checkpoint.ParseConfig("config.json", []byte(config))
	if err != nil {
		return err
	}
	cfg, err := model.ParseConfig(parsed.Bytes())
	if err != nil {
		return err
	}
	stated, _, err := model.Describe(cfg)
	if err != nil {
		return err
	}
	var specs []checkpoint.Spec
	for _, t := range stated {
		specs = append(specs, checkpoint.Spec{Name: t.Name, DType: stored, Shape: t.Shape})
	}
	o, err := checkpoint.CreateOutput(dir, true)
	if err != nil {
		return err
	}
	defer o.Abort()
	w, err := checkpoint.Create(o.Dir, specs, checkpoint.WriteOptions{MaxShardBytes: 5 << 30})
	if err != nil {
		return err
	}
	defer w.Abort()
	rng := rand.New(rand.NewPCG(1, 0))
	var values []float32
	for _, s := range specs {
		n := 1
		for _, d := range s.Shape {
			n *= d
		}
		if cap(values) < n {
			values = make([]float32, n)
		}
		values = values[:n]
		for i := range values {
			values[i] = (rng.Float32() - 0.5) * 0.07
		}
		if err := w.WriteFloat32(s.Name, values); err != nil {
			return err
		}
	}
	if err := w.Commit(); err != nil {
		return err
	}
	if err := o.WriteConfig(parsed); err != nil {
		return err
	}
	return o.Commit()
}

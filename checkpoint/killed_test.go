package checkpoint

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestMain lets the test binary be the process that TestKilled kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("CHECKPOINT_TEST_WRITE_FOREVER"); dir != "" {
		writeForever(dir)
	}
	os.Exit(m.Run())
}

// killedSize is the elements of the tensors that are written and killed.
const killedSize = 50_000

// writeForever replaces a snapshot and a model directory again and again, each
// time with one more in every element.
func writeForever(dir string) {
	values := make([]float32, killedSize)
	for n := float32(1); ; n++ {
		for i := range values {
			values[i] = n
		}
		err := SaveSnapshot(filepath.Join(dir, "snapshot"), n, []Section{{Name: "a", Float32: values}})
		if err == nil {
			err = replaceModel(filepath.Join(dir, "model"), values)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if n == 1 {
			fmt.Println("ready")
		}
	}
}

func replaceModel(dir string, values []float32) error {
	o, err := CreateOutput(dir, true)
	if err != nil {
		return err
	}
	defer o.Abort()
	config, err := ParseConfig("config.json", fmt.Appendf(nil, `{"model_type": "test", "n": %g}`, values[0]))
	if err != nil {
		return err
	}
	if err := o.WriteConfig(config); err != nil {
		return err
	}
	w, err := Create(o.Dir, []Spec{{"a", F32, []int{len(values)}}}, WriteOptions{})
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := w.WriteFloat32("a", values); err != nil {
		return err
	}
	if err := w.Commit(); err != nil {
		return err
	}
	return o.Commit()
}

// Killed at any moment (SIGKILL), a writer leaves the old files or the new
// ones, all of one kind, and the next writer goes on and clears up.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	for round := range 12 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "CHECKPOINT_TEST_WRITE_FOREVER="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 200)
		n, _ := out.Read(line)
		if !bytes.HasPrefix(line[:n], []byte("ready")) {
			t.Fatalf("round %d: the writer says %q", round, line[:n])
		}
		time.Sleep(time.Duration(round*1700) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed, as it should be

		var n1 float32
		snapshot, err := LoadSnapshot(filepath.Join(dir, "snapshot"), &n1)
		if err != nil {
			t.Fatal(err)
		}
		checkAll(t, snapshot, n1)
		model, err := OpenDir(filepath.Join(dir, "model"))
		if err != nil {
			t.Fatal(err)
		}
		n2, err := model.Config.Float("n")
		if err != nil {
			t.Fatal(err)
		}
		checkAll(t, model.Weights, float32(n2))
	}
	if err := replaceModel(filepath.Join(dir, "model"), make([]float32, killedSize)); err != nil {
		t.Fatal(err)
	}
	if err := SaveSnapshot(filepath.Join(dir, "snapshot"), 0, nil); err != nil {
		t.Fatal(err)
	}
	if got := fileNames(t, dir); !slices.Equal(got, []string{"model", "snapshot"}) {
		t.Errorf("left behind %q", got)
	}
}

func checkAll(t *testing.T, r *Reader, want float32) {
	t.Helper()
	values := float32s(t, r, "a")
	if len(values) != killedSize || slices.ContainsFunc(values, func(v float32) bool { return v != want }) {
		t.Fatalf("expected %d times %g, found %d from %g to %g", killedSize, want, len(values), slices.Min(values), slices.Max(values))
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

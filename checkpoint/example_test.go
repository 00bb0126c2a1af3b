package checkpoint_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"mlpfusion/checkpoint"
)

// A model directory written and read again.
func Example() {
	parent, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(parent)
	path := filepath.Join(parent, "small")
	if err := write(path); err != nil {
		log.Fatal(err)
	}

	dir, err := checkpoint.OpenDir(path)
	if err != nil {
		log.Fatal(err)
	}
	defer dir.Close()
	family, err := dir.Config.String("model_type")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(family)
	for _, name := range dir.Weights.Names() {
		tensor, _ := dir.Weights.Tensor(name)
		values := make([]float32, tensor.Elements())
		if err := tensor.ReadFloat32(values); err != nil {
			log.Fatal(err)
		}
		fmt.Println(name, tensor.DType, tensor.Shape, values)
	}
	// Output:
	// bert
	// pooler.bias F32 [3] [0 1 2]
	// pooler.weight BF16 [1 3] [0.5 1 1.5]
}

// write makes a directory with a config.json and two tensors. Nothing is seen at path
// before Commit.
func write(path string) error {
	out, err := checkpoint.CreateOutput(path, false)
	if err != nil {
		return err
	}
	defer out.Abort() // does nothing after Commit
	config, err := checkpoint.ParseConfig("config.json", []byte(`{"model_type": "bert"}`))
	if err != nil {
		return err
	}
	if err := out.WriteConfig(config); err != nil {
		return err
	}
	w, err := checkpoint.Create(out.Dir, []checkpoint.Spec{
		{Name: "pooler.weight", DType: checkpoint.BF16, Shape: []int{1, 3}},
		{Name: "pooler.bias", DType: checkpoint.F32, Shape: []int{3}},
	}, checkpoint.WriteOptions{Metadata: map[string]string{"format": "pt"}})
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := w.WriteFloat32("pooler.weight", []float32{0.5, 1, 1.5}); err != nil {
		return err
	}
	if err := w.WriteFloat32("pooler.bias", []float32{0, 1, 2}); err != nil {
		return err
	}
	if err := w.Commit(); err != nil {
		return err
	}
	return out.Commit()
}

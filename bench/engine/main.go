// Command engine measures fine-tuning and evaluation beside PyTorch and ONNX
// Runtime: ours and theirs alternate in one run on the same batches, and only
// ratios are reported.
//
//	engine serve                          answers requests of bench/peers/train.py's form
//	engine compare -python PYTHON         the table of ratios; -rounds, -out, -only
//	engine gpt2 -python PYTHON            a language model's training step; -layers, -prec, -rounds
//
// MLPFUSION_MINILM names the directory of all-MiniLM-L6-v2, MLPFUSION_DATA the
// folder of the data sets.
package main

import (
	"fmt"
	"os"
)

func main() {
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == "serve":
		err = serve(os.Stdin, os.Stdout)
	case len(os.Args) > 1 && os.Args[1] == "compare":
		err = compare(os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == "gpt2":
		err = compareText(os.Args[2:])
	default:
		err = fmt.Errorf("expected serve, compare or gpt2")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

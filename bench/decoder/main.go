// Command decoder measures a small decoder of today, SmolLM2-135M with its real
// weights, beside transformers and llama.cpp: training steps, perplexity, prompts and
// greedy generation, in turns in one run on the same tokens.
//
//	decoder compare -python PYTHON -llama PYTHON -gguf FOLDER    the table of ratios; -rounds, -out, -only
//	decoder serve                                                answers its requests, as the peers do
//
// MLPFUSION_SMOLLM2 names the model's directory, MLPFUSION_DATA the folder of the data
// sets, of which WikiText-2 is read.
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
	default:
		err = fmt.Errorf("expected serve or compare")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "decoder:", err)
		os.Exit(1)
	}
}

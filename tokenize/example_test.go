package tokenize_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"mlpfusion/tokenize"
)

// The tokenizer of a model directory; here one of BERT's kind with a vocabulary of ten.
func ExampleLoad() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	files := map[string]string{
		"config.json": `{"model_type": "bert"}`,
		"vocab.txt":   "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nfilm\ncharm\n##ing\n!\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			log.Fatal(err)
		}
	}

	tok, err := tokenize.Load(dir)
	if err != nil {
		log.Fatal(err)
	}
	e := tok.Encode("A charming film!", nil, 0)
	fmt.Println(e.IDs)
	fmt.Println(tok.Decode(e.IDs))

	pair := "a film"
	e = tok.Encode("charming", &pair, 6) // at most six tokens
	fmt.Println(e.IDs, e.Types)
	// Output:
	// [2 5 7 8 6 9 3]
	// a charming film!
	// [2 7 3 5 6 3] [0 0 0 1 1 1]
}

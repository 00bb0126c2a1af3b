// Package python holds what the command writes beside a checkpoint for Python.
package python

import _ "embed"

// ModelingFile is the name of the file by which transformers loads a compressed
// checkpoint, and Modeling its text.
const ModelingFile = "modeling_mlpfusion.py"

//go:embed mlpfusion/modeling_mlpfusion.py
var Modeling []byte

// Package model holds the transformer families. A family is one file: it states
// its tensors once, in building its layers, and writes its forward pass on an
// nn.Tape. Loading, saving, fusing (which MLP blocks there are and what they are
// called) and the optimizer all use that one statement.
package model

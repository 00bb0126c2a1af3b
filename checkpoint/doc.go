// Package checkpoint reads and writes Hugging Face model directories:
// safetensors weights (single or sharded), config.json,
// the tokenizer files beside them, the hub's local cache, and training
// snapshots. It knows nothing of model families.
//
// Everything read is untrusted. Every offset, size and shape is checked before
// it is used, and bad input gets one sentence that names the file, the key,
// what was expected and what was found.
//
// Everything written goes to a temporary name first, is synced, and is then
// renamed: a run killed at any moment leaves the old file or the new one.
package checkpoint

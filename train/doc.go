// Package train fine-tunes models: AdamW and SGD, learning-rate schedules,
// gradient clipping, the training loop with evaluation and best-checkpoint
// choice, and snapshots from which a killed run goes on to the same bytes.
package train

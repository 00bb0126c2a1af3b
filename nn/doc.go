// Package nn holds the differentiable operations of the training engine.
//
// A batch is the tokens of all its sequences laid end to end: every operation
// sees a (tokens × width) matrix and there is no padding anywhere. An operation
// runs at once when called on a Tape and, while training, appends its backward
// pass to that tape; forward and backward stand side by side, one operation a
// file. Memory comes from arenas that are reset each step, so a steady training
// step allocates nothing on the heap.
package nn

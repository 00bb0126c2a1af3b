package main

import (
	"bufio"
	"context"
	"io"
)

// scanner yields the lines of an input that may keep one waiting, as a terminal
// does, until the context ends. err counts once lines is closed.
type scanner struct {
	lines chan string
	err   error
}

// scanLines begins to read. The reading goroutine may outlive the context: nothing
// ends a read of standard input.
func scanLines(ctx context.Context, r io.Reader) *scanner {
	s := &scanner{lines: make(chan string, 256)}
	read := make(chan string)
	var err error
	go func() {
		defer close(read)
		in := bufio.NewScanner(r)
		in.Buffer(nil, 1<<24)
		for in.Scan() {
			select {
			case read <- in.Text():
			case <-ctx.Done():
				return
			}
		}
		err = in.Err()
	}()
	go func() {
		defer close(s.lines)
		for {
			select {
			case line, ok := <-read:
				if !ok {
					s.err = err
					return
				}
				s.lines <- line
			case <-ctx.Done():
				s.err = ctx.Err()
				return
			}
		}
	}()
	return s
}

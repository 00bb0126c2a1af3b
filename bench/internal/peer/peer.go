// Package peer talks with the other side of a benchmark: a process that reads
// requests and writes answers, a JSON object a line.
package peer

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// Process is a peer. It answers one request at a time.
type Process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// Start begins a peer; what it says on standard error is shown.
func Start(name string, args ...string) (*Process, error) {
	p := &Process{cmd: exec.Command(name, args...)}
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReaderSize(out, 1<<20)
	return p, p.cmd.Start()
}

// Ask sends a request and decodes the answer. An answer with an error in it is one.
func Ask[Answer any](p *Process, request any) (a Answer, err error) {
	if err := json.NewEncoder(p.in).Encode(request); err != nil {
		return a, fmt.Errorf("peer: %w", err)
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return a, fmt.Errorf("peer: expected an answer, found none: %w", err)
	}
	var failed struct{ Error string }
	if err := errors.Join(json.Unmarshal(line, &failed), json.Unmarshal(line, &a)); err != nil {
		return a, fmt.Errorf("peer: expected a JSON object, found %.80q: %w", line, err)
	}
	if failed.Error != "" {
		return a, fmt.Errorf("peer: %s", failed.Error)
	}
	return a, nil
}

// Close ends the peer, which stops when it is asked no more.
func (p *Process) Close() error { return errors.Join(p.in.Close(), p.cmd.Wait()) }

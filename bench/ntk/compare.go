package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// compare alternates with the peer on MiniLM's block 0, each side in a process of
// its own, so that their memory can be told apart.
func compare(command string, rounds, n, threads int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Printf("| kernel, n = %d, %d threads | ours s | peer s | peer/ours (rounds) | ours cpu s | peer cpu s | peer/ours cpu | ours MB | peer MB |\n|---|---|---|---|---|---|---|---|---|\n", n, threads)
	for _, kind := range []string{"adam", "sgd"} {
		q := request{Model: "minilm", N: n, Kernel: kind, Threads: threads}
		var a, b answer
		var ratios, cpu []float64
		for range rounds {
			if a, err = ask([]string{self}, q); err != nil {
				return err
			}
			if b, err = ask(strings.Fields(command), q); err != nil {
				return err
			}
			ratios, cpu = append(ratios, b.Seconds/a.Seconds), append(cpu, b.CPU/a.CPU)
		}
		slices.Sort(ratios)
		slices.Sort(cpu)
		fmt.Printf("| %s | %.2f | %.2f | %.2f (%.2f … %.2f) | %.1f | %.1f | %.2f | %.0f | %.0f |\n", kind, a.Seconds, b.Seconds,
			ratios[rounds/2], ratios[0], ratios[rounds-1], a.CPU, b.CPU, cpu[rounds/2], a.Peak, b.Peak)
	}
	return nil
}

// ask runs a command for one request.
func ask(command []string, q request) (answer, error) {
	var a answer
	c := exec.Command(command[0], command[1:]...)
	c.Stderr = os.Stderr
	line, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	c.Stdin = strings.NewReader(string(line) + "\n")
	pipe, err := c.StdoutPipe()
	if err != nil {
		return a, err
	}
	if err := c.Start(); err != nil {
		return a, err
	}
	text, err := io.ReadAll(bufio.NewReader(pipe))
	if err := c.Wait(); err != nil {
		return a, err
	}
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return a, fmt.Errorf("%s answered %q: %w", command[0], text, err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("%s: %s", command[0], a.Error)
	}
	return a, nil
}

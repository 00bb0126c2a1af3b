package task

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// The two forms in which E2E NLG is published: the challenge's CSV, whose
// meaning representations are slot[value], …, and LoRA's text, in which they are
// slot : value | … already. Rows with the same one are an entry.

// slotNames are LoRA's words for the challenge's slots; the others stay as they are.
var slotNames = map[string]string{"eatType": "Type", "familyFriendly": "family friendly", "priceRange": "price"}

// readE2E reads a file of either form, by its ending.
func readE2E(d *Dataset, path string, f file, to *texts) error {
	prompts := map[string]int{}
	// Rows with one meaning representation are not always neighbours.
	add := func(prompt, target string) error {
		prompt, target = strings.TrimSpace(prompt), strings.TrimSpace(target)
		if prompt == "" || target == "" {
			return errors.New("expected a meaning representation and a text, found an empty one")
		}
		if prompts[prompt] == 0 {
			to.entries++
			prompts[prompt] = to.entries
		}
		return to.add(Example{Text: prompt, Target: target, Entry: prompts[prompt]})
	}
	if strings.ToLower(filepath.Ext(path)) == ".txt" {
		if err := readE2EText(f, add); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	}
	rows, err := d.readTable(path, f)
	if err != nil {
		return err
	}
	for _, r := range rows {
		prompt, err := linearise(r.text)
		if err == nil {
			err = add(prompt, r.label)
		}
		if err != nil {
			return fmt.Errorf("%s: %s %d: %w", path, r.unit, r.line, err)
		}
	}
	return nil
}

// readE2EText reads lines of MR||text.
func readE2EText(r io.Reader, add func(prompt, target string) error) error {
	next := lines(r)
	for {
		n, line, err := next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		parts := strings.Split(string(line), "||")
		if len(parts) != 2 {
			return fmt.Errorf("line %d: expected one || between meaning representation and text, found %d", n, len(parts)-1)
		}
		if err := add(parts[0], parts[1]); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
}

// linearise turns slot[value], slot[value] into slot : value | slot : value, in
// LoRA's words.
func linearise(mr string) (string, error) {
	var out []string
	for rest := strings.TrimSpace(mr); rest != ""; {
		slot, after, ok := strings.Cut(rest, "[")
		value, next, closed := strings.Cut(after, "]")
		slot = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(slot), ","))
		if !ok || !closed || slot == "" {
			return "", fmt.Errorf("expected slot[value], slot[value], …, found %.100q", mr)
		}
		if name := slotNames[slot]; name != "" {
			slot = name
		}
		out = append(out, slot+" : "+strings.TrimSpace(value))
		rest = strings.TrimSpace(next)
	}
	return strings.Join(out, " | "), nil
}

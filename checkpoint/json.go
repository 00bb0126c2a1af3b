package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"mlpfusion/internal/disk"
)

// maxJSONFile bounds config and index files, which are read whole.
const maxJSONFile = 64 << 20

// field is one key of a JSON object with its value as written.
type field struct {
	key string
	raw json.RawMessage
}

// parseObject splits a JSON object into its fields, in their order. Unlike
// encoding/json it refuses a key that occurs twice: two readers could
// otherwise see two different values in one file.
func parseObject(data []byte) ([]field, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("expected JSON, found bytes that are not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	start, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("expected a JSON object: %w", jsonEnd(err))
	}
	if start != json.Delim('{') {
		if start == nil {
			start = "null"
		}
		return nil, fmt.Errorf("expected a JSON object, found %v", start)
	}
	var fields []field
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("expected a JSON object: %w", jsonEnd(err))
		}
		key := token.(string) // inside an object the decoder allows nothing else here
		if seen[key] {
			return nil, fmt.Errorf("key %q occurs twice", key)
		}
		seen[key] = true
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, fmt.Errorf("key %q: %w", key, jsonEnd(err))
		}
		fields = append(fields, field{key, raw})
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("expected a JSON object: %w", jsonEnd(err))
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("expected one JSON object, found more after it")
	}
	return fields, nil
}

// jsonEnd says in words what encoding/json reports as a bare EOF.
func jsonEnd(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("the JSON ends too early")
	}
	return err
}

// encodeJSON is json.Marshal with <, > and & left as they are.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// indentJSON formats raw JSON as Python's json.dumps(indent=2) does, every
// line but the first behind prefix.
func indentJSON(raw []byte, prefix string) []byte {
	var b bytes.Buffer
	if json.Indent(&b, raw, prefix, "  ") != nil {
		return raw
	}
	return b.Bytes()
}

// readSmallFile reads a regular file of at most maxJSONFile bytes.
func readSmallFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		what := "none"
		if info.IsDir() {
			what = "a directory"
		}
		return nil, fmt.Errorf("%s: expected a regular file, found %s", path, what)
	}
	if info.Size() > maxJSONFile {
		return nil, fmt.Errorf("%s: expected at most %d bytes, found %d", path, maxJSONFile, info.Size())
	}
	return disk.ReadFile(path)
}

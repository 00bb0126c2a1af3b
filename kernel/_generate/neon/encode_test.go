package main

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEncoding disassembles every instruction with several registers and lanes.
func TestEncoding(t *testing.T) {
	objdump := "aarch64-linux-gnu-objdump"
	if _, err := exec.LookPath(objdump); err != nil {
		t.Skip("no " + objdump)
	}
	var names []string
	for name := range encodings {
		names = append(names, name)
	}
	slices.Sort(names)
	var want []string
	var code []byte
	for n, name := range names {
		for r := range 8 {
			m := machine{name: name}
			for i, kind := range strings.Fields(encodings[name].operands) {
				v := vec((r*13 + i*7 + n) % 32)
				switch kind {
				case "zero", "16":
				case "#left", "#right":
					m.args = append(m.args, r*4+1)
				case "s", "2h":
					m.args = append(m.args, lane{v, r % 4})
				case "d":
					m.args = append(m.args, lane{v, r % 2})
				default:
					m.args = append(m.args, v)
				}
			}
			bits, text := m.encode()
			code = binary.LittleEndian.AppendUint32(code, bits)
			want = append(want, text)
		}
	}
	path := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(path, code, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(objdump, "-D", "-b", "binary", "-m", "aarch64", "-M", "no-aliases", "--no-show-raw-insn", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range strings.Split(string(out), "\n") {
		if m := regexp.MustCompile(`^\s*[0-9a-f]+:\s+(.*?)\s*$`).FindStringSubmatch(l); m != nil {
			s := regexp.MustCompile(`\s+`).ReplaceAllString(m[1], " ")
			// A lengthening is a shift to the left by 0.
			got = append(got, regexp.MustCompile(`^sshll(2?) (.*), #0$`).ReplaceAllString(s, "sxtl$1 $2"))
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d instructions disassembled, %d written", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("objdump prints %q, want %q", got[i], want[i])
		}
	}
}

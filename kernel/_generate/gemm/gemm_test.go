package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	. "github.com/mmcloughlin/avo/reg"
)

// TestEncoding disassembles emitted instructions with every register.
func TestEncoding(t *testing.T) {
	if _, err := exec.LookPath("objdump"); err != nil {
		t.Skip("no objdump")
	}
	var all []machine
	for i := range 32 {
		all = append(all, machine{name: "vdpbf16ps", dst: i, s1: (i * 7) % 32, s2: (i*11 + 5) % 32},
			machine{name: "vcvtne2ps2bf16", dst: i, s1: (i*5 + 3) % 32, s2: (i * 13) % 32})
	}
	gp := []Register{RAX, RCX, RDX, RBX, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15}
	for i, b := range gp {
		x := gp[(i*4+3)%len(gp)]
		all = append(all,
			machine{name: "tileloadd", dst: i % 8, base: b, index: x, disp: 64 * i},
			machine{name: "tilestored", dst: i % 8, base: x, index: b, disp: 4096 + i},
			machine{name: "ldtilecfg", base: b, disp: 8 * i})
	}
	for i := range 8 {
		all = append(all, machine{name: "tilezero", dst: i},
			machine{name: "tdpbf16ps", dst: i, s1: (i + 3) % 8, s2: (i + 5) % 8})
	}
	all = append(all, machine{name: "tilerelease"})
	var code []byte
	for _, m := range all {
		code = append(code, m.encode()...)
	}
	path := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(path, code, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "--no-show-raw-insn", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range strings.Split(string(out), "\n") {
		if m := regexp.MustCompile(`^\s*[0-9a-f]+:\s+(.*?)\s*$`).FindStringSubmatch(l); m != nil {
			got = append(got, normal(m[1]))
		}
	}
	if len(got) != len(all) {
		t.Fatalf("%d instructions disassembled, %d written:\n%s", len(got), len(all), out)
	}
	for i, m := range all {
		if want := normal(m.String()); got[i] != want {
			t.Errorf("% x is %q, want %q", m.encode(), got[i], want)
		}
	}
}

// normal writes objdump's forms of one thing in one way.
func normal(s string) string {
	s = regexp.MustCompile(`\s+`).ReplaceAllString(s, " ")
	s = strings.NewReplacer("+riz*1", "", "+0x0]", "]").Replace(s)
	return s
}

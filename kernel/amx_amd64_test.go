//go:build !noasm

package kernel

import (
	"encoding/binary"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/cpu"
)

// TestTileConfig holds the configuration of AMX's tiles to what LDTILECFG accepts (Intel's
// manual, volume 1, 18.3) and the kernel needs, as no machine here would fault.
func TestTileConfig(t *testing.T) {
	c := tileConfig
	if c[0] != 1 || c[1] != 0 {
		t.Errorf("palette %d and first row %d, want 1 and 0", c[0], c[1])
	}
	for i, b := range c[2:16] {
		if b != 0 {
			t.Errorf("reserved byte %d is %d", 2+i, b)
		}
	}
	for tile := range 16 {
		bytes, rows := binary.LittleEndian.Uint16(c[16+2*tile:]), c[48+tile]
		if tile < 8 && (bytes != 64 || rows != 16) || tile >= 8 && (bytes != 0 || rows != 0) {
			t.Errorf("tile %d has %d rows of %d bytes", tile, rows, bytes)
		}
	}
}

// TestTileOrder reads the kernel: tiles are configured before they are used, released
// before it returns, and none is above the eighth.
func TestTileOrder(t *testing.T) {
	text, err := os.ReadFile("gemm_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(text), "TEXT ·tile32x32AMX(SB)")
	body, _, _ = strings.Cut(body, "\nTEXT ")
	var order []string
	for _, m := range regexp.MustCompile(`// (ldtilecfg|tile\w+|tdp\w+)|\t(RET)\n|tmm([8-9]|\d\d)`).FindAllStringSubmatch(body, -1) {
		order = append(order, m[1]+m[2])
		if m[3] != "" {
			t.Errorf("tile %s is used", m[3])
		}
	}
	n := len(order)
	if n < 20 || order[0] != "ldtilecfg" || order[n-2] != "tilerelease" || order[n-1] != "RET" || strings.Count(strings.Join(order, " "), "RET") != 1 {
		t.Errorf("the order of tile instructions and returns is %v", order)
	}
}

// TestTilePermission: without the system's permission a processor with AMX has none, and
// one without is not asked about.
func TestTilePermission(t *testing.T) {
	x := &cpu.X86
	for _, has := range []*bool{&x.HasAVX2, &x.HasFMA, &x.HasBMI2, &x.HasAVX512F, &x.HasAVX512BW, &x.HasAVX512DQ, &x.HasAVX512VL, &x.HasAVX512BF16, &x.HasAMXBF16, &x.HasAMXTile} {
		defer func(was bool) { *has = was }(*has)
		*has = true
	}
	allow := true
	ask := func() bool { return allow }
	if isa := detectAsking(ask); isa&AMX == 0 {
		t.Errorf("with permission the extensions are %b", isa)
	}
	allow = false
	without := detectAsking(ask)
	if without&AMX != 0 || without&AVX512BF16 == 0 {
		t.Errorf("without permission the extensions are %b", without)
	}
	defer func(isa ISA) { detected = isa }(detected)
	detected = without
	if _, err := choose("amx"); err == nil || !strings.Contains(err.Error(), "which this machine lacks") {
		t.Errorf("amx without permission: %v", err)
	}
	x.HasAMXTile = false
	if isa := detectAsking(func() bool { t.Error("a processor without tiles is asked about"); return true }); isa&AMX != 0 {
		t.Errorf("without tiles the extensions are %b", isa)
	}
}

//go:build !noasm

package kernel

import "golang.org/x/sys/windows"

// hasBF16 asks Windows; versions that do not know the feature say that it is not there.
func hasBF16() bool {
	const armV86BF16 = 68 // PF_ARM_V86_BF16_INSTRUCTIONS_AVAILABLE
	return windows.IsProcessorFeaturePresent(armV86BF16)
}

//go:build !noasm

package kmeans

// offerAVX2 does what offer.portable does, but for rounding.
//
//go:noescape
func offerAVX2(o *offer)

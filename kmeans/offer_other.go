//go:build !amd64 || noasm

package kmeans

func offerAVX2(o *offer) { o.portable() }

//go:build !amd64

package fma

func floats(n int) { floatsGo(n) }

func pairs(n int) { floatsGo(n) }

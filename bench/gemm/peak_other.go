//go:build !amd64

package main

const peakFLOPSPerStep = 0

func fmaLoop(int) {}

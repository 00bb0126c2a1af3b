package main

import (
	"fmt"
	"strconv"
	"strings"
)

// parseShard reads the value i/n of --shard: the i-th of n shares. 0/n is n/n, so that
// an array of jobs may count from 0, as Kubernetes does, or from 1.
func parseShard(s string) (i, n int, err error) {
	of, all, _ := strings.Cut(s, "/")
	i, err1 := strconv.Atoi(of)
	n, err2 := strconv.Atoi(all)
	if err1 != nil || err2 != nil || i < 0 || n < 1 || i > n {
		return 0, 0, usageError{fmt.Errorf("shard: expected i/n such as 1/4, found %q", s)}
	}
	if i == 0 {
		i = n
	}
	return i, n, nil
}

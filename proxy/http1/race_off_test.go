//go:build !race

package http1

const pooled = true

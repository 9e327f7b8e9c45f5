//go:build !race && !housecheck

package proxy

const slowBuild = false

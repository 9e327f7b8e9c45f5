//go:build race

package config

// raceBuild says that pools forget at random, so that what is allocated says
// nothing.
const raceBuild = true

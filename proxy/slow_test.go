//go:build race || housecheck

package proxy

// slowBuild says that this build checks more than it is fast.
const slowBuild = true

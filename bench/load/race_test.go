//go:build race

package load

// raceEnabled: the race detector makes pools forget, so that budgets of heap
// objects do not hold.
const raceEnabled = true

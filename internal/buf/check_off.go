//go:build !housecheck

package buf

// Check says that buffers are poisoned and their owners checked.
const Check = false

func lend([]byte)     {}
func takeBack([]byte) {}

// Holders names who holds buffers; only Check builds know.
func Holders() map[string]int { return nil }

// Package testnet gives in-memory connections that work in fake time. Only
// tests import it.
//
// It imitates what TCP shows to a program: buffers that fill, half-close,
// reset, deadlines. It has no descriptors, so internal/wire, which drives
// those, is tested on loopback instead; testnet is for engines and handshakes.
//
// # Memory
//
// Write copies, Read copies. A connection holds at most Buffer bytes in each
// direction.
//
// # Concurrency
//
// A Conn may be used by many goroutines at once. It waits on condition
// variables and sets timers of package time only, so inside testing/synctest a
// blocked Read or Write counts as idle and deadlines pass in no time. Both ends
// must be used in the bubble that made them.
//
// Start reading at Pair.
package testnet

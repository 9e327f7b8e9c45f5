// Package handover gives the listening sockets of a process to its successor, so
// that a restart refuses nobody.
//
// It does not start the successor, and serves nothing: what a process does until
// it has handed over, and afterwards, is its own.
//
// The successor connects to a socket of the file system (Take), and is sent the
// descriptors while its predecessor serves on. When it serves as well it says so,
// and the predecessor stops accepting. Until then nothing has changed: a successor
// that fails leaves its predecessor as it was.
//
// # Memory
//
// Nothing here is tuned: it happens once in the life of a process.
//
// # Concurrency
//
// A Door may be used from any goroutine; the others belong to one.
//
// Start reading at Door.Successor.
package handover

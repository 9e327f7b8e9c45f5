// Package sniff tells by a client's first bytes what it speaks: HTTP/1, HTTP/2,
// TLS and for which name, or something else.
//
// It reads nothing but what it is fed, keeps no bytes, decides on no route, and
// knows no time: how long to wait for more is the engine's. A judgement depends
// on the bytes alone, never on how they were cut into reads, and comes with the
// first byte that settles it. HTTP/1 is settled by a whole METHOD SP target SP
// HTTP/1. and HTTP/2 by the whole preface, so bytes of another protocol that
// merely begin like a request are not taken for one.
//
// # Memory
//
// A Detector is four words and holds no bytes. A Hello keeps the name, and
// nothing else of what it reads.
//
// # Concurrency
//
// None: whoever feeds it guards it.
//
// Start reading at Detector.Feed, then Hello.Feed in hello.go.
package sniff

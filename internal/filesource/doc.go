// Package filesource watches files and hands each new document on.
//
// It decodes through proxy/config and applies through a function value, and so
// sees nothing else of the proxy. It does not judge documents: a rejected one
// is reported, and what was applied before stays.
//
// # Memory
//
// Between two changes it holds the hash of what it handed on, and no document.
//
// # Concurrency
//
// A Source belongs to one goroutine, on which Once and Run call Apply and
// Report. fsnotify's own goroutine ends with Run.
//
// Start reading at Source.Run.
package filesource

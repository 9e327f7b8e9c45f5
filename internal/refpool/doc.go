// Package refpool keeps one value per key alive while anyone holds it.
//
// It does not look into the values and never replaces one: who wants another
// value chooses another key.
//
// # Memory
//
// A key costs one map entry while its value is held, and nothing afterwards.
//
// # Concurrency
//
// A Pool may be used from any goroutine. Values are built and closed with no
// lock held; those who ask for the same key meanwhile wait for that one build.
//
// Start reading at Get.
package refpool

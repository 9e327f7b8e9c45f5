// Package needs gets what a test needs from outside its package: a program that
// may not be installed, data from beside the repository, one of the module's
// own programs. Only tests import it.
//
// It installs nothing. Where something is missing the test is skipped and a
// line is left for the summary that `make test` prints; under continuous
// integration (CI=true) the test fails instead, so that nothing is left out
// unseen.
//
// # Memory
//
// None is kept.
//
// # Concurrency
//
// All functions may be called from tests that run at once: the summary is
// appended to in one write each.
//
// Start reading at Missing.
package needs

// Package needs says what a test needs that may not be here: a program, or
// data from beside the repository. Only tests import it.
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
